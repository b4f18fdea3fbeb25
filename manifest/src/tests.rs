use super::*;
use proptest::prelude::*;

const HTTP: &str = r#"
name = "http"

[[device]]
kind = "stack"
name = "service"

[[device]]
kind = "kv_ro"
name = "htdocs"
source = "htdocs"

[[arg]]
name = "port"
type = "u16"
default = 80
doc = "TCP port to serve"
http = true
"#;

fn problem(text: &str) -> (usize, String) {
    let Problem { line, message } = Manifest::parse(text).expect_err(text);
    (line, message)
}

#[test]
fn a_whole_file_is_read() {
    let manifest = Manifest::parse(HTTP).unwrap();
    assert_eq!(manifest.name, "http");
    assert_eq!(
        manifest.devices.iter().map(|device| (device.kind, device.name.as_str())).collect::<Vec<_>>(),
        [(Kind::Stack, "service"), (Kind::KvReadOnly, "htdocs")]
    );
    assert_eq!(manifest.devices[1].source.as_deref(), Some("htdocs"));
    let port = Argument {
        name: "port".into(),
        value: Type::U16,
        presence: Presence::Default("80".into()),
        stage: Stage::Boot,
        doc: "TCP port to serve".into(),
        serves: Serves { tcp: true, udp: false, http: true },
    };
    assert_eq!(manifest.arguments, [port]);
}

#[test]
fn a_slip_is_named_with_its_line_and_what_was_meant() {
    let text = HTTP.replace("\"stack\"", "\"stak\"");
    assert_eq!(
        problem(&text),
        (5, "device 'service': unknown kind \"stak\": did you mean \"stack\"? (allowed: stack, http_server, http_client, net, block, kv_ro, kv_rw)".into())
    );
    let text = HTTP.replace("source =", "sorce =");
    assert_eq!(
        problem(&text),
        (
            11,
            "device 'htdocs': unknown field \"sorce\": did you mean \"source\"? (allowed: kind, name, group, stack, source, layers, store)"
                .into()
        )
    );
    let text = HTTP.replace("kind = \"stack\"", "knid = \"stack\"");
    assert_eq!(
        problem(&text),
        (5, "unknown field \"knid\": did you mean \"kind\"? (allowed: kind, name, group, stack, source, layers, store)".into())
    );
    let text = HTTP.replace("doc =", "dok =");
    assert_eq!(
        problem(&text),
        (17, "argument 'port': unknown field \"dok\": did you mean \"doc\"? (allowed: name, type, default, required, repeated, group, stage, doc, tcp, udp, http)".into())
    );
    let text = HTTP.replace("[[device]]", "[[devices]]");
    assert_eq!(
        problem(&text),
        (4, "unknown field \"devices\": did you mean \"device\"? (allowed: name, optimize, prng, device, arg)".into())
    );
}

#[test]
fn wrong_values_are_explained() {
    for (from, to, line, message) in [
        ("name = \"http\"", "title = 'x'", 2, "unknown field \"title\": allowed: name, optimize, prng, device, arg"),
        (
            "name = \"http\"",
            "name = \"http\"\nprng = \"fortune\"",
            3,
            "unknown generator \"fortune\": did you mean \"fortuna\"? (allowed: fortuna, insecure)",
        ),
        ("name = \"http\"", "", 1, "field \"name\" is missing: the application's name"),
        ("name = \"http\"", "name = \"My App\"", 2, "name \"My App\": write lower-case letters, digits and dashes, a letter first"),
        ("= 80", "= \"http\"", 16, "argument 'port': default \"http\" is no u16"),
        ("= 80", "= 0", 13, "argument 'port': default \"0\" is no port: write a number from 1 to 65535"),
        (
            "= 80",
            "= [80]",
            16,
            "default is a value of type array, and text, a decimal number, true or false is wanted: write default = \"...\"",
        ),
        (
            "\"u16\"",
            "\"u15\"",
            15,
            "argument 'port': unknown type \"u15\": did you mean \"u16\"? (allowed: string, bool, u16, u32, u64, i64, f64, duration, ipv4, ip, socket)",
        ),
        ("doc =", "required = true\ndoc =", 13, "argument 'port': default, required and repeated exclude each other: keep one"),
        ("default = 80", "stage = \"build\"", 13, "argument 'port': an argument of the stage build has a default: add one"),
        ("name = \"port\"", "name = \"self\"", 13, "argument 'self': it cannot name a field in Rust: choose another"),
        (
            "name = \"htdocs\"",
            "name = \"htdocs\"\ngroup = \"public\"",
            8,
            "device 'htdocs': a kv_ro device has no group: leave it out (stacks have one)",
        ),
        ("= true", "= \"yes\"", 18, "http is a value of type string, and true or false is wanted: write http = true"),
        ("name = \"port\"", "name = \"logs\"", 14, "argument 'logs': every image has --logs already: choose another name"),
        ("name = \"service\"", "name = \"fire-wall\"", 6, "device name \"fire-wall\": write lower-case letters and digits, a letter first"),
        ("name = \"service\"", "name = \"type\"", 6, "device name \"type\": it is a word of the Rust language: choose another"),
        ("name = \"service\"", "name = \"htdocs\"", 8, "device 'htdocs' is declared already, in line 4: rename one"),
        (
            "name = \"service\"",
            "name = \"service\"\nsource = \"x\"",
            7,
            "device 'service': a stack device has no source: leave it out (kv_ro and kv_rw have one)",
        ),
        ("[[arg]]", "[arg]", 13, "arg is to be a list of tables: write [[arg]] above each"),
    ] {
        let text = HTTP.replacen(from, to, 1);
        assert_eq!(problem(&text), (line, message.into()), "{from} -> {to}");
    }
    assert!(problem("name = ").1.starts_with("this is not TOML: "));
}

#[test]
fn layers_are_named_in_their_order_and_belong_to_block_devices() {
    const DISK: &str = "name = \"a\"\n[[device]]\nkind = \"block\"\nname = \"disk\"\nlayers = [\"partition\", \"cache\"]\n";
    assert_eq!(Manifest::parse(DISK).unwrap().devices[0].layers, [Layer::Partition, Layer::Cache]);
    for (from, to, message) in [
        ("\"cache\"", "\"cahce\"", "device 'disk': unknown layer \"cahce\": did you mean \"cache\"?"),
        ("\"cache\"", "\"partition\"", "device 'disk': the layer partition is there twice: leave one out"),
        ("\"cache\"", "7", "layers is a value of type integer, and text is wanted"),
        ("\"block\"", "\"net\"", "device 'disk': a net device has no layers: leave them out"),
        ("[\"partition\", \"cache\"]", "\"cache\"", "layers is a value of type string, and a list of texts is wanted"),
    ] {
        let (line, found) = problem(&DISK.replacen(from, to, 1));
        assert!(line == 5 && found.starts_with(message), "{line}: {found}");
    }
}

#[test]
fn names_are_as_long_as_a_manifest_allows() {
    let file = |length: usize| format!("name = \"a\"\n[[device]]\nkind = \"net\"\nname = \"{}\"\n", "n".repeat(length));
    assert!(Manifest::parse(&file(NAME_MAX)).is_ok());
    assert!(problem(&file(NAME_MAX + 1)).1.contains("68 characters"));
}

#[test]
fn there_are_at_most_as_many_devices_as_a_manifest_holds() {
    let file =
        |count| (0..count).fold("name = \"a\"\n".to_owned(), |text, n| text + &format!("[[device]]\nkind = \"net\"\nname = \"n{n}\"\n"));
    assert!(Manifest::parse(&file(MAX_DEVICES)).is_ok());
    assert!(problem(&file(MAX_DEVICES + 1)).1.starts_with("more than 63 devices"));
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = Manifest::parse(&text);
    }

    #[test]
    fn nearly_right_text_never_panics(at in 0..HTTP.len(), with in "[a-z\\[\\]\"=\\n\\\\.{}0-9é]{0,6}", cut in 0..8usize) {
        let end = (at + cut).min(HTTP.len());
        let _ = Manifest::parse(&format!("{}{with}{}", &HTTP[..at], &HTTP[end..]));
    }
}

#[test]
fn stores_on_block_devices_may_have_layers_and_no_source() {
    let text = "name = \"a\"\n[[device]]\nkind = \"kv_rw\"\nname = \"store\"\nstore = \"log\"\nlayers = [\"partition\"]\n";
    let device = &Manifest::parse(text).unwrap().devices[0];
    assert!(device.store == Some(Store::Block(Format::Log)) && device.layers == [Layer::Partition]);
    for (name, store) in [("tar", Store::Block(Format::Tar)), ("fat", Store::Block(Format::Fat))] {
        let device = &Manifest::parse(&text.replace("kv_rw", "kv_ro").replace("log", name)).unwrap().devices[0];
        assert_eq!((device.kind, device.store), (Kind::KvReadOnly, Some(store)));
    }
    for (from, to, message) in [
        ("layers = [\"partition\"]", "source = \"x\"", "device 'store': a log store has no source"),
        ("\"log\"", "\"zip\"", "device 'store': unknown store \"zip\": allowed: embedded, directory, memory, log, tar, fat"),
        ("\"log\"", "\"lag\"", "device 'store': unknown store \"lag\": did you mean \"log\"?"),
        ("kv_rw", "block", "device 'store': a block device has no store"),
        ("\"log\"", "\"embedded\"", "device 'store': an embedded store cannot be written"),
        ("\"log\"", "\"memory\"", "device 'store': a kv_rw device has no layers"),
        ("\"log\"", "\"memory\"\nsource = \"x\"", "device 'store': a memory store has no source"),
    ] {
        let found = Manifest::parse(&text.replace(from, to)).unwrap_err().message;
        assert!(found.starts_with(message), "{found}");
    }
}

#[test]
fn an_argument_is_declared_to_the_runtime() {
    let declared = |fields: &str| {
        let manifest = Manifest::parse(&format!("name = 'x'\narg = [{{ name = 'a', doc = 'd', {fields} }}]")).unwrap();
        manifest.arguments[0].declaration()
    };
    let text = "Argument::new::<::fogbow::arguments::generated::String>";
    assert_eq!(declared(""), format!("{text}(\"a\", \"d\")"));
    assert_eq!(declared("required = true, group = 'public'"), format!("{text}(\"public-a\", \"d\").required()"));
    assert_eq!(declared("default = 'x\"', stage = 'build'"), format!("{text}(\"a\", \"d\").fixed(\"x\\\"\")"));
    assert_eq!(declared("type = 'bool'"), "Argument::new::<bool>(\"a\", \"d\").flag().default(\"false\")");
    assert_eq!(
        declared("type = 'duration', repeated = true"),
        "Argument::new::<::fogbow::arguments::Span>(\"a\", \"d\").valued(\"DURATION\").repeated()"
    );
}

#[test]
fn values_are_fixed_for_the_stage_build_alone() {
    let text = "name = 'x'\narg = [{ name = 'size', type = 'u16', default = 1, stage = 'build' }, { name = 'port', default = '1' }]";
    let mut manifest = Manifest::parse(text).unwrap();
    let mut set = |name: &str, value: &str| manifest.set(&[(name.to_owned(), value.to_owned())]).map_err(|error| error.to_string());
    assert_eq!(set("size", "7"), Ok(()));
    assert_eq!(set("size", "x"), Err("--set size=x: 'x' is no u16".to_owned()));
    assert_eq!(set("port", "2"), Err("--set port=...: no argument of the stage build is called 'port': allowed: size".to_owned()));
    assert_eq!(manifest.arguments[0].default(), Some("7"));
}

#[test]
fn http_devices_have_a_stack_or_share_one() {
    let with = |devices: &str| format!("name = \"app\"\ndevice = [\n{devices}\n]\n");
    let manifest = Manifest::parse(&with(
        r#"{ kind = "http_server", name = "web", group = "public" }, { kind = "http_client", name = "origin", stack = "web" }"#,
    ));
    let devices = manifest.unwrap().devices;
    assert_eq!((devices[0].kind, devices[0].group.as_deref(), &devices[0].stack), (Kind::HttpServer, Some("public"), &None));
    assert_eq!((devices[1].kind, devices[1].stack.as_deref()), (Kind::HttpClient, Some("web")));
    for (devices, message) in [
        (
            r#"{ kind = "net", name = "a", stack = "b" }"#,
            "device 'a': a net device has no stack: leave it out (http_server and http_client have one)",
        ),
        (
            r#"{ kind = "stack", name = "b" }, { kind = "http_client", name = "a", stack = "b", group = "c" }"#,
            "device 'a': a stack of another device has that one's group: leave group or stack out",
        ),
        (r#"{ kind = "http_client", name = "a", stack = "b" }"#, "device 'a': no device before it has a stack called 'b': there is none"),
        (r#"{ kind = "http_client", name = "a", stack = "a" }"#, "device 'a': no device before it has a stack called 'a': there is none"),
        (
            r#"{ kind = "stack", name = "service" }, { kind = "http_server", name = "a", stack = "servce" }"#,
            "device 'a': no device before it has a stack called 'servce': did you mean \"service\"? (allowed: service)",
        ),
        (
            r#"{ kind = "http_server", name = "a", source = "b" }"#,
            "device 'a': a http_server device has no source: leave it out (kv_ro and kv_rw have one)",
        ),
    ] {
        assert_eq!(problem(&with(devices)).1, message);
    }
}

#[test]
fn a_store_is_chosen_when_an_image_is_built() {
    let text = "name = \"a\"\ndevice = [\n{ kind = \"kv_ro\", name = \"pages\", source = \"site\" },\n{ kind = \"kv_ro\", name = \"open\" },\n\
                { kind = \"kv_rw\", name = \"state\", store = \"log\", layers = [\"cache\", \"xts\"] },\n{ kind = \"block\", name = \"disk\" }]\n";
    let choose = |choices: &[(&str, &str)]| {
        let mut manifest = Manifest::parse(text).unwrap();
        let choices: Vec<_> = choices.iter().map(|(name, store)| ((*name).to_owned(), store.parse().unwrap())).collect();
        manifest.choose(&choices).map(|()| manifest.devices).map_err(|error| error.to_string())
    };
    let chosen = choose(&[("pages", "fat"), ("pages", "tar"), ("state", "memory")]).unwrap();
    assert_eq!(chosen[0].store, Some(Store::Block(Format::Tar)));
    assert!(chosen[1].store.is_none() && chosen[2].store == Some(Store::Memory) && chosen[2].layers.is_empty());
    let kept = choose(&[("state", "fat"), ("open", "directory")]).unwrap();
    assert_eq!(kept[2].layers, [Layer::Cache, Layer::Xts]);
    for (name, store, message) in [
        ("pagse", "tar", "--store pagse=tar: no store is called 'pagse': did you mean \"pages\"? (allowed: pages, open, state)"),
        ("disk", "log", "--store disk=log: no store is called 'disk': allowed: pages, open, state"),
        ("pages", "memory", "--store pages=memory: device 'pages' (kv_ro): a store in memory is empty at start"),
        ("state", "embedded", "--store state=embedded: device 'state' (kv_rw): an embedded store cannot be written"),
        (
            "open",
            "embedded",
            "--store open=embedded: device 'open' (kv_ro): an embedded store holds the files of a directory, and none is named",
        ),
        ("state", "directory", "--store state=directory: unikernel.toml encrypts device 'state' (layer xts), which a directory is not"),
    ] {
        let error = choose(&[(name, store)]).unwrap_err();
        assert!(error.starts_with(message), "{error}");
    }
    let none = Manifest::parse("name = \"a\"").unwrap().choose(&[("x".to_owned(), Store::Memory)]).unwrap_err().to_string();
    assert_eq!(none, "--store x=memory: no store is called 'x': the application has none");
}

#[test]
fn stores_have_names() {
    for (store, name) in Store::ALL.into_iter().zip(Store::NAMES) {
        assert_eq!((store.name(), name.parse()), (name, Ok(store)));
    }
}
