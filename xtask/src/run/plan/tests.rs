use super::*;
use crate::cli::{Cli, Command};
use crate::manifest::Manifest;
use clap::Parser as _;

const HTTP: &str = r#"
    name = "http"
    device = [{ kind = "stack", name = "service" }, { kind = "kv_ro", name = "htdocs", source = "htdocs" }]
    arg = [{ name = "port", default = "80", http = true }]
"#;
const ECHO: &str = r#"
    name = "echo"
    device = [{ kind = "stack", name = "service" }]
    arg = [{ name = "port", default = "7", tcp = true, udp = true }]
"#;
const ROUTER: &str = r#"
    name = "router"
    device = [{ kind = "net", name = "left" }, { kind = "net", name = "right" }, { kind = "block", name = "disk" }]
"#;

/// Plans `cargo xtask run app LINE`, on a host where port 8080 alone is taken.
fn plan(manifest: &str, line: &str) -> Result<Plan, String> {
    let words = ["cargo xtask", "run", "app"].into_iter().chain(line.split_whitespace());
    let Command::Run(args) = Cli::try_parse_from(words).map_err(|error| error.to_string())?.command else { panic!("not run") };
    let manifest = Manifest::parse(manifest).unwrap();
    let mut choices = args.build.stack.clone();
    choices.extend(super::super::implied_stacks(&manifest, &args));
    let resolved = Resolved::new(&manifest, args.build.target, &choices).map_err(|error| error.to_string())?;
    Plan::new(&resolved, &args, |port, _| port != 8080).map_err(|error| error.to_string())
}

fn check(manifest: &str, line: &str, options: &str, arguments: &str, places: &str) {
    let plan = plan(manifest, line).unwrap();
    let found = (plan.tender_options().collect::<Vec<_>>().join(" "), plan.arguments.join(" "), plan.places.join("; "));
    assert_eq!(found, (options.to_owned(), arguments.to_owned(), places.to_owned()), "{line}");
}

#[test]
fn an_image_gets_a_user_network_unless_told_otherwise() {
    check(
        HTTP,
        "-t spt",
        "--net:service=user,hostfwd=8081:80",
        "--ipv4=10.0.2.15/24 --ipv4-gateway=10.0.2.2",
        "http is at http://127.0.0.1:8081/",
    );
    check(
        ECHO,
        "-t hvt --mem 16 -- --port 9 --logs=*:info",
        "--mem=16 --net:service=user,hostfwd=8009:9,hostfwd=udp:8009:9",
        "--ipv4=10.0.2.15/24 --ipv4-gateway=10.0.2.2 --port 9 --logs=*:info",
        "echo is at 127.0.0.1:8009 (TCP and UDP)",
    );
    check(
        HTTP,
        "-t spt --net service=user,hostfwd=tcp:127.0.0.1:9000:80 -- --ipv4=10.0.2.20/24",
        "--net:service=user,hostfwd=tcp:127.0.0.1:9000:80",
        "--ipv4-gateway=10.0.2.2 --ipv4=10.0.2.20/24",
        "http is at http://127.0.0.1:9000/",
    );
}

#[test]
fn a_tap_is_passed_through() {
    check(
        HTTP,
        "-t spt --net service=tap0 -- --ipv4=10.0.0.2/24",
        "--net:service=tap0",
        "--ipv4=10.0.0.2/24",
        "http is at http://10.0.0.2/",
    );
    check(
        HTTP,
        "-t unix --net service=tap0 -- --ipv4 10.0.0.2/24 --port=81",
        "",
        "--service-tap=tap0 --ipv4 10.0.0.2/24 --port=81",
        "http is at http://10.0.0.2:81/",
    );
}

#[test]
fn a_program_serves_where_it_needs_no_privilege() {
    check(HTTP, "-t unix", "", "--port=8081", "http is at http://127.0.0.1:8081/");
    check(HTTP, "-t unix -- --port=80 --bind=0.0.0.0", "", "--port=80 --bind=0.0.0.0", "http is at http://127.0.0.1/");
}

#[test]
fn devices_without_a_default_are_asked_for() {
    let error = |line| plan(ROUTER, line).unwrap_err();
    assert_eq!(error("-t hvt"), "device 'left' is attached to nothing: add --net left=TAP or --net left=user,hostfwd=8080:80");
    assert_eq!(error("-t hvt --net left=a --net right=b"), "device 'disk' is attached to nothing: add --block disk=FILE");
    check(ROUTER, "-t hvt --net left=a --net right=b --block disk=f", "--net:left=a --net:right=b --block:disk=f", "", "");
    check(ROUTER, "-t unix --net left=a --net right=b --block disk=f", "", "--left-tap=a --right-tap=b --disk-file=f", "");
}

#[test]
fn what_is_only_read_is_opened_for_reading_alone() {
    let manifest = "name = \"app\"\ndevice = [{ kind = \"kv_ro\", name = \"seed\", store = \"tar\" }, \
                    { kind = \"block\", name = \"disk\", layers = [\"authenticated\", \"read_only\"] }]\n";
    let devices = "--block seed=a --block disk=b";
    let options = "--block:seed=a --block:disk=b";
    check(manifest, &format!("-t spt {devices}"), &format!("{options} --block-read-only:seed=yes"), "", "");
    check(manifest, &format!("-t spt --tender solo5-spt {devices}"), options, "", "");
    check(manifest, &format!("-t unix {devices}"), "", "--seed-file=a --disk-file=b", "");
}

#[test]
fn what_cannot_be_done_is_said() {
    let error = |manifest, line| plan(manifest, line).unwrap_err();
    assert_eq!(
        error(HTTP, "-t spt --net servic=tap0"),
        "--net servic=...: no net device is called 'servic': did you mean \"service\"? (allowed: service)"
    );
    assert_eq!(error(HTTP, "-t spt --block disk=f"), "--block disk=...: http has no block device on spt");
    assert_eq!(error(HTTP, "-t spt --net service=a --net service=b"), "--net service=... is given twice: leave one out");
    assert!(error(HTTP, "-t spt --tender solo5-spt").starts_with("solo5-spt has no user-mode network for device 'service'"));
    assert!(error(HTTP, "-t unix --net service=user").starts_with("--net service=user is for images"));
    assert!(error(HTTP, "-t spt --stack service=host").contains("the target spt cannot offer it"));
}
