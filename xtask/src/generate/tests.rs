use super::*;
use crate::manifest::Manifest;
use crate::manifest::Prng;
use crate::resolve::{StackChoice, Target};

const EVERYTHING: &str = r#"
name = "app"
device = [
    { kind = "stack", name = "service" },
    { kind = "block", name = "disk" },
    { kind = "kv_ro", name = "pages", source = "pages" },
    { kind = "kv_rw", name = "state" },
]
arg = [{ name = "greeting", default = "say \"hi\"", doc = "what to say" }, { name = "to", doc = "whom" }]
"#;

/// Makes an application in a directory of its own and generates its crate; gives the directory and `main.rs`.
fn generate_app(text: &str, target: Target, choices: &[(String, StackChoice)]) -> (tempfile::TempDir, Generated, String) {
    let directory = tempfile::tempdir().unwrap();
    let app = directory.path().join("app");
    for (file, text) in [
        (crate::manifest::FILE, text),
        ("Cargo.toml", "[package]\nname = \"my-crate\"\nversion = \"1.2.3\"\nedition = \"2024\"\n[workspace]\n"),
        ("src/lib.rs", ""),
        ("pages/index.html", "hello"),
    ] {
        files::write_if_changed(&app.join(file), text).unwrap();
    }
    let workspace = Workspace::find().unwrap();
    let application = Application::find(&workspace, app.to_str().unwrap()).unwrap();
    let resolved = Resolved::new(&application.manifest, target, choices).unwrap();
    let generated = generate(&workspace, &application, &resolved).unwrap();
    let main = fs::read_to_string(generated.directory.join("src/main.rs")).unwrap();
    (directory, generated, main)
}

#[test]
fn an_image_opens_its_devices_in_order() {
    let (_directory, generated, main) = generate_app(EVERYTHING, Target::Hvt, &[]);
    let expected = r#"//! The image `app` for the target hvt.
//!
//! Made by `cargo xtask build . --target hvt` from unikernel.toml.
//! Changes here are lost.
#![no_std]
#![no_main]

use fogbow::arguments::{Argument, COMMON, Group};
use fogbow::{Image, StartError};
use fogbow_kv::{Embedded, Memory};
use fogbow_net::direct::Direct;

mod embedded_pages;

const IMAGE: Image = Image {
    name: "app",
    version: "1.2.3",
    arguments: &[COMMON, Group { prefix: "", arguments: APPLICATION }, Group { prefix: "", arguments: fogbow_net::direct::ARGUMENTS }],
};

/// Arguments of the application.
const APPLICATION: &[Argument] = &[
    Argument::new::<::fogbow::arguments::generated::String>("greeting", "what to say").default("say \"hi\""),
    Argument::new::<::fogbow::arguments::generated::String>("to", "whom"),
];

fogbow_hvt::image! { image: IMAGE, devices: [net "service", block "disk"], start: start }

// Read here so that a change of the linker script links the image anew.
const _: &[u8] = include_bytes!("../image.ld");

async fn start() -> Result<(), StartError> {
    let service = fogbow_hvt::net("service").map_err(|error| StartError::new("service", error))?;
    let service = Direct::from_arguments(service, "").await?;
    let disk = fogbow_hvt::block("disk").map_err(|error| StartError::new("disk", error))?;
    let pages = Embedded::new(&embedded_pages::ENTRIES);
    let state = Memory::new();
    application::start(service, disk, pages, state).await.map_err(StartError::application)
}
"#;
    assert_eq!(main, expected);
    let cargo = fs::read_to_string(generated.directory.join("Cargo.toml")).unwrap();
    assert!(cargo.contains("application = { package = \"my-crate\", path = \"../../..\" }\n"), "{cargo}");
    assert!(cargo.contains("name = \"app-hvt\"\nversion = \"1.2.3\"\n"), "{cargo}");
    assert!(cargo.contains("[profile.release]\n") && cargo.ends_with("[workspace]\n"), "{cargo}");
    assert!(cargo.parse::<toml::Table>().is_ok(), "{cargo}");
}

#[test]
fn a_program_takes_the_hosts_sockets_and_directories() {
    let (_directory, _generated, main) = generate_app(EVERYTHING, Target::Unix, &[]);
    let expected = r#"/// Arguments of device 'pages'.
const PAGES_DIRECTORY: &[Argument] = &[Argument::new::<String>("directory", "the directory of the host that is this store")
    .valued("PATH")
    .default(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../pages"))];

fogbow_unix::image! { image: IMAGE, devices: [block "disk"], start: start }

async fn start() -> Result<(), StartError> {
    let service = fogbow_unix::stack()?;
    let disk = fogbow_unix::block("disk").map_err(|error| StartError::new("disk", error))?;
    let pages = fogbow::arguments::parse::<String>("pages-directory")?;
    let pages = Directory::open(pages).map_err(|error| StartError::new("pages", error))?;
    let state = Memory::new();
    application::start(service, disk, pages, state).await.map_err(StartError::application)
}
"#;
    assert!(main.ends_with(expected), "{main}");
    assert!(!main.contains("no_std"), "{main}");
}

#[test]
fn the_generator_is_a_feature_of_the_runtime() {
    let (_directory, generated, _) = generate_app("name = \"app\"", Target::Spt, &[]);
    let manifest = generated.directory.join("Cargo.toml");
    assert!(!fs::read_to_string(&manifest).unwrap().contains("insecure"));
    let workspace = Workspace::find().unwrap();
    let application = Application::find(&workspace, generated.directory.ancestors().nth(3).unwrap().to_str().unwrap()).unwrap();
    let insecure = Manifest { prng: Prng::Insecure, ..application.manifest.clone() };
    let resolved = Resolved::new(&insecure, Target::Spt, &[]).unwrap();
    generate(&workspace, &application, &resolved).unwrap();
    let text = fs::read_to_string(&manifest).unwrap();
    assert!(text.contains("default-features = false, features = [\"insecure-prng\"] }"), "{text}");
}

#[test]
fn a_stack_over_a_tap_has_the_arguments_of_both() {
    let (_directory, _generated, main) = generate_app(EVERYTHING, Target::Unix, &[("service".to_owned(), StackChoice::Direct)]);
    assert!(main.contains("Group { prefix: \"\", arguments: fogbow_net::direct::ARGUMENTS }"), "{main}");
    assert!(main.contains("Group { prefix: \"service-\", arguments: fogbow_unix::NET_ARGUMENTS }"), "{main}");
}

#[test]
fn layers_lie_over_their_device_in_order() {
    let text = "name = \"app\"\ndevice = [{ kind = \"block\", name = \"disk\", layers = [\"partition\", \"xts\", \"read_only\"] }]\n";
    let (_directory, generated, main) = generate_app(text, Target::Spt, &[]);
    let lines: Vec<_> = main.lines().map(str::trim).filter(|line| line.starts_with("let disk")).collect();
    assert_eq!(
        lines,
        [
            "let disk = fogbow_spt::block(\"disk\").map_err(|error| StartError::new(\"disk\", error))?;",
            "let disk = fogbow_block::layers::partition(disk, \"disk\").await?;",
            "let disk = fogbow_block::layers::xts(disk, \"disk\").await?;",
            "let disk = fogbow_block::layers::read_only(disk, \"disk\").await?;",
        ]
    );
    assert!(main.contains("Group { prefix: \"disk-\", arguments: fogbow_block::layers::XTS_ARGUMENTS }"), "{main}");
    let manifest = fs::read_to_string(generated.directory.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("features = [\"encryption\", \"layers\", \"partition\"]"), "{manifest}");
}

#[test]
fn stores_lie_over_block_devices_and_are_guarded_where_they_are_only_read() {
    let text = "name = \"app\"\ndevice = [{ kind = \"kv_ro\", name = \"seed\", store = \"tar\" }, \
                { kind = \"kv_rw\", name = \"disk\", store = \"log\", layers = [\"cache\"] }]\n";
    let (_directory, generated, main) = generate_app(text, Target::Spt, &[]);
    let lines: Vec<_> = main.lines().map(str::trim).filter(|line| line.starts_with("let ")).collect();
    assert_eq!(
        lines,
        [
            "let seed = fogbow_spt::block(\"seed\").map_err(|error| StartError::new(\"seed\", error))?;",
            "let seed = fogbow_block::layers::read_only(seed, \"seed\").await?;",
            "let seed = fogbow_kv::stores::tar(seed, \"seed\").await?;",
            "let disk = fogbow_spt::block(\"disk\").map_err(|error| StartError::new(\"disk\", error))?;",
            "let disk = fogbow_block::layers::cache(disk, \"disk\").await?;",
            "let disk = fogbow_kv::stores::log(disk, \"disk\").await?;",
        ]
    );
    assert!(main.contains("Group { prefix: \"disk-\", arguments: fogbow_kv::stores::LOG_ARGUMENTS }"), "{main}");
    let (_directory, _generated, program) = generate_app(text, Target::Unix, &[]);
    assert!(program.contains("fogbow_unix::read_only_block(\"seed\")") && program.contains("fogbow_unix::block(\"disk\")"), "{program}");
    let manifest = fs::read_to_string(generated.directory.join("Cargo.toml")).unwrap();
    assert!(manifest.contains("features = [\"cache\", \"layers\"]") && manifest.contains("features = [\"stores\", \"tar\"]"), "{manifest}");
}

#[test]
fn an_application_without_devices_needs_little() {
    let (_directory, _generated, main) = generate_app("name = \"app\"", Target::Spt, &[]);
    assert!(main.contains("use fogbow::arguments::COMMON;\n"), "{main}");
    assert!(main.contains("fogbow_spt::image! { image: IMAGE, devices: [], start: start }"), "{main}");
    assert!(main.contains("    application::start().await"), "{main}");
}

#[test]
fn what_did_not_change_is_not_written_and_what_is_gone_is_removed() {
    let (directory, generated, _main) = generate_app(EVERYTHING, Target::Hvt, &[]);
    let old = std::time::SystemTime::UNIX_EPOCH;
    let files = ["Cargo.toml", "Cargo.lock", "image.ld", "src/main.rs", "src/embedded_pages.rs"].map(|file| generated.directory.join(file));
    for file in &files {
        fs::File::options().write(true).open(file).unwrap().set_modified(old).unwrap();
    }
    let modified = |file: &PathBuf| fs::metadata(file).unwrap().modified().unwrap();
    let workspace = Workspace::find().unwrap();
    let again = |text: &str| {
        let app = directory.path().join("app");
        let application =
            Application { manifest: Manifest::parse(text).unwrap(), ..Application::find(&workspace, app.to_str().unwrap()).unwrap() };
        let resolved = Resolved::new(&application.manifest, Target::Hvt, &[]).unwrap();
        generate(&workspace, &application, &resolved).unwrap();
    };
    again(EVERYTHING);
    assert!(files.iter().all(|file| modified(file) == old));
    fs::write(directory.path().join("app/pages/index.html"), "changed").unwrap();
    again(EVERYTHING);
    assert!(modified(&files[4]) != old && modified(&files[3]) == old);
    again("name = \"app\"");
    assert!(!files[4].exists());
}

#[test]
fn a_source_that_is_not_there_is_named() {
    let text = EVERYTHING.replace("source = \"pages\"", "source = \"sites\"");
    let directory = tempfile::tempdir().unwrap();
    files::write_if_changed(&directory.path().join("Cargo.toml"), "[package]\nname = \"x\"\nedition = \"2024\"\n[workspace]\n").unwrap();
    files::write_if_changed(&directory.path().join("src/lib.rs"), "").unwrap();
    files::write_if_changed(&directory.path().join(crate::manifest::FILE), text).unwrap();
    let workspace = Workspace::find().unwrap();
    let application = Application::find(&workspace, directory.path().to_str().unwrap()).unwrap();
    for target in [Target::Spt, Target::Unix] {
        let resolved = Resolved::new(&application.manifest, target, &[]).unwrap();
        let error = format!("{:#}", generate(&workspace, &application, &resolved).unwrap_err());
        assert!(error.starts_with("device 'pages' (kv_ro): source ") && error.contains("is no directory"), "{error}");
    }
}
