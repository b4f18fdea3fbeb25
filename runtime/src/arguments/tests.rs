use super::*;
use alloc::string::ToString;
use proptest::prelude::*;

const STACK: Group = Group {
    prefix: "admin-",
    arguments: &[
        Argument::new::<String>("ipv4", "address"),
        Argument::new::<u16>("mtu", "MTU").valued("BYTES").default("1500"),
        Argument::new::<bool>("probe", "ask first").flag().default("false"),
        Argument::new::<u8>("route", "route").repeated(),
        Argument::new::<String>("kind", "kind").fixed("direct"),
    ],
};
const NEEDY: Group = Group { prefix: "n-", arguments: &[Argument::new::<u8>("x", "").required()] };

fn read(line: &str) -> Result<Arguments, ArgumentError> {
    match Arguments::read(&[COMMON, STACK], split(line)?)? {
        Request::Start(arguments) => Ok(arguments),
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_come_from_the_line_else_from_the_default() {
    let arguments = read("--admin-ipv4=10.0.0.2/24 -l '*:debug' --admin-ipv4 10.0.0.3/24").unwrap();
    assert_eq!(arguments.get("admin-ipv4"), Some("10.0.0.3/24"));
    assert_eq!(arguments.get("admin-mtu"), Some("1500"));
    assert_eq!(arguments.get("logs"), Some("*:debug"));
    assert_eq!(arguments.get("mtu"), None);
}

#[test]
fn mistakes_are_named() {
    for (line, error) in [
        ("--ipv4=10.0.0.2", ArgumentError::Unknown("ipv4".into())),
        ("--admin-ipv4", ArgumentError::NoValue("admin-ipv4".into())),
        ("hello", ArgumentError::Stray("hello".into())),
        ("--admin-probe no", ArgumentError::Stray("no".into())),
        ("--logs='x", ArgumentError::Unclosed),
        ("--admin-kind=host", ArgumentError::Fixed("admin-kind".into())),
    ] {
        assert_eq!(read(line).unwrap_err(), error);
    }
    let invalid = read("--admin-mtu=70000").unwrap_err();
    assert!(invalid.to_string().starts_with("argument --admin-mtu=70000: number too large"), "{invalid}");
    let missing = Arguments::read(&[NEEDY], [""; 0]).unwrap_err();
    assert_eq!(missing, ArgumentError::Missing { name: "n-x".into() });
    assert!(Arguments::read(&[NEEDY], ["--n-x=1"]).is_ok());
}

#[test]
fn flags_repetitions_and_fixed_values() {
    let arguments = read("--admin-probe --admin-route=1 --admin-route 2 --solo5:quiet").unwrap();
    assert_eq!(arguments.get("admin-probe"), Some("true"));
    assert_eq!(arguments.get_all("admin-route").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(arguments.get("admin-kind"), Some("direct"));
    assert_eq!(arguments.verbosity, Some(LevelFilter::Error));
    assert_eq!(read("--admin-probe=false").unwrap().get("admin-probe"), Some("false"));
}

#[test]
fn lengths_of_time_have_a_unit() {
    assert_eq!("2s".parse(), Ok(Span(Duration::from_secs(2))));
    for text in ["", "s", "2", "2 s", "-2s", "1.5s", "99999999999h", "2\u{e9}"] {
        assert_eq!(text.parse::<Span>(), Err(SpanError), "{text}");
    }
}

#[test]
fn help_lists_every_argument_with_its_default() {
    let help = Help { image: "http", groups: &[COMMON, STACK] }.to_string();
    assert!(help.contains("--admin-probe\n      ask first\n") && help.contains("--admin-mtu=BYTES\n      MTU (default: 1500)"), "{help}");
    assert!(matches!(Arguments::read(&[], ["--help"]), Ok(Request::Help)));
}

proptest! {
    #[test]
    fn any_line_is_read_or_refused(line in ".{0,200}") {
        let _ = split(&line).map(|words| Arguments::read(&[COMMON, STACK], words));
    }
}
