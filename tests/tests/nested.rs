//! The hvt target where nothing is left out: our images under our tender on real hardware virtualisation, nested in an emulated machine.
#![forbid(unsafe_code)]

use std::sync::LazyLock;

use anyhow::{Context as _, Result, anyhow, ensure};
use fogbow_tests::Skip;
use fogbow_tests::faults::FAULTS;
use fogbow_tests::guest::Ended;
use fogbow_tests::nested::{self, Case, Report};
use fogbow_tests::trial::trial;
use libtest_mimic::{Arguments, Trial};

const IMAGES: [&str; 4] = ["hello", "clock", "faults", "http"];

type Verdict = Box<dyn Fn(&Ended) -> Result<()> + Send + Sync>;

/// A case, and what has to come of it.
struct Test {
    case: Case,
    status: i32,
    verdict: Verdict,
}

/// All cases run in one boot, when the first of their tests asks for its result.
static REPORT: LazyLock<Result<Report>> = LazyLock::new(|| {
    let cases: Vec<_> = tests().into_iter().map(|test| test.case).collect();
    nested::run(&IMAGES, &cases)
});

fn main() {
    let trials: Vec<Trial> = tests().into_iter().map(into_trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn into_trial(test: Test) -> Trial {
    trial(format!("nested::{}", test.case.name), move || {
        let report = REPORT.as_ref().map_err(|error| match error.downcast_ref::<Skip>() {
            Some(skip) => skip.clone().into(),
            None => anyhow!("{error:#}"),
        })?;
        let ended = report.case(&test.case.name)?;
        ensure!(ended.status == Some(test.status), "not status {}: {ended:?}", test.status);
        (test.verdict)(&ended)
    })
}

/// A test that the script ends with `status` and prints `text`.
fn prints(name: &str, script: &str, status: i32, text: &'static str) -> Test {
    let verdict = move |ended: &Ended| {
        ensure!(ended.console.contains(text), "no {text:?} in {ended:?}");
        Ok(())
    };
    test(name, script, status, verdict)
}

fn test(name: &str, script: &str, status: i32, verdict: impl Fn(&Ended) -> Result<()> + Send + Sync + 'static) -> Test {
    Test { case: Case { name: name.to_owned(), script: script.to_owned() }, status, verdict: Box::new(verdict) }
}

fn tests() -> Vec<Test> {
    let mut tests = vec![
        test("hello_prints_its_line_and_ends_with_0", "tender /images/hello.hvt", 0, |ended| {
            ensure!(ended.console.to_lowercase().contains("hello"), "{ended:?}");
            Ok(())
        }),
        prints("hello_answers_help", "tender --mem=64 /images/hello.hvt --help", 0, "--logs=FILTER"),
        prints("hello_refuses_an_unknown_argument_with_64", "tender /images/hello.hvt --nonsense=1", 64, "unknown argument --nonsense"),
        prints("hello_runs_in_2_mib", "tender --mem=2 /images/hello.hvt", 0, "ello"),
        prints("error_of_an_application_ends_with_1", "tender --mem=64 /images/faults.hvt --fault=nonsense", 1, "no fault is called"),
        test("clock_sleeps_and_tells_the_date", CLOCK, 0, tells_the_date),
        test("http_over_the_ring", &http("", "grep -q 'network ring'"), 0, answers_everything),
        // Pinned to one processor, the tender offers no ring.
        test("http_over_hypercalls", &http("taskset 1", "! grep -q 'network ring'"), 0, answers_everything),
    ];
    tests.extend(FAULTS.iter().map(|fault| {
        let script = format!("tender --mem=64 /images/faults.hvt --fault={}", fault.name);
        prints(&format!("fault_{}_is_stopped", fault.name), &script, 255, fault.machine)
    }));
    // As they run.
    tests.sort_by(|a, b| a.case.name.cmp(&b.case.name));
    tests
}

/// The date comes first, as the machine around the image has it.
const CLOCK: &str =
    "date -u +%Y-%m-%d; tender --mem=64 /images/clock.hvt --count=2 --interval=20ms; status=$?; date -u +%Y-%m-%d; exit $status";

fn tells_the_date(ended: &Ended) -> Result<()> {
    let lines: Vec<&str> = ended.console.lines().collect();
    let [before, first, second, after, ..] = lines[..] else { anyhow::bail!("not two lines between two dates: {ended:?}") };
    for line in [first, second] {
        // It may be midnight.
        ensure!(line.contains(before) || line.contains(after), "another date: {ended:?}");
    }
    let seconds = |line: &str| -> Result<f64> {
        let number = line.split_whitespace().next().with_context(|| format!("no time in {line:?}"))?;
        Ok(number.parse()?)
    };
    // Lines are due at 0 and at 20 ms; each may come late.
    ensure!(seconds(first)? < seconds(second)? && seconds(second)? >= 0.020, "it did not sleep: {ended:?}");
    Ok(())
}

/// Serves the example's site with a tender run by `prefix`; `threads` looks at the names of its threads. Each file is compared with its
/// source, then the guest is pinged.
fn http(prefix: &str, threads: &str) -> String {
    format!(
        "{prefix} tender --mem=64 --net:service=tap0 /images/http.hvt --ipv4=10.0.0.2/24 &
until wget -q -O /tmp/index http://10.0.0.2/; do kill -0 $! || exit 1; done
cmp /tmp/index /htdocs/index.html || exit 2
for file in /htdocs/*; do
    wget -q -O /tmp/file http://10.0.0.2/${{file##*/}} && cmp /tmp/file $file || exit 3
done
{threads} /proc/$!/task/*/comm || exit 4
ping -A -c 20 10.0.0.2 || exit 5
kill $!
wait $!
exit 0
"
    )
}

fn answers_everything(ended: &Ended) -> Result<()> {
    ensure!(ended.console.contains(" 0% packet loss"), "{ended:?}");
    Ok(())
}
