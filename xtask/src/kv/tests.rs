use super::*;

fn run_line(line: &[&str]) -> anyhow::Result<ExitCode> {
    use clap::Parser as _;
    let words = ["xtask", "--quiet", "kv"].iter().chain(line);
    let crate::cli::Command::Kv { command } = crate::cli::Cli::try_parse_from(words)?.command else { bail!("not kv") };
    run(&command, &Progress::new(true))
}

#[test]
fn a_directory_goes_in_and_comes_out_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (image, source, out) = (path("disk.img"), path("in"), path("out"));
    fs::create_dir_all(directory.path().join("in/sub")).unwrap();
    fs::write(path("in/small"), "one").unwrap();
    fs::write(path("in/sub/large"), vec![7; 300_000]).unwrap();
    fs::write(path("in/sub/empty"), "").unwrap();
    run_line(&["format", &image, "--create", "8M"]).unwrap();
    assert!(run_line(&["format", &image]).unwrap_err().to_string().contains("--force"));
    run_line(&["import", &image, &source, "top"]).unwrap();
    run_line(&["put", &image, "top/gone", &path("in/small")]).unwrap();
    run_line(&["rm", &image, "top/gone"]).unwrap();
    assert_eq!(run_line(&["check", &image]).unwrap(), ExitCode::SUCCESS);
    run_line(&["ls", &image, "--recursive"]).unwrap();
    run_line(&["export", &image, &out, "top"]).unwrap();
    for name in ["small", "sub/large", "sub/empty"] {
        assert_eq!(fs::read(path(&format!("in/{name}"))).unwrap(), fs::read(path(&format!("out/{name}"))).unwrap());
    }
    assert!(!Path::new(&path("out/gone")).exists());
}

#[test]
fn what_is_wrong_is_said_and_what_can_be_read_is_exported() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let image = path("disk.img");
    fs::write(&image, vec![0; 1 << 20]).unwrap();
    assert!(format!("{:#}", run_line(&["ls", &image]).unwrap_err()).contains("no log store"));
    run_line(&["format", &image]).unwrap();
    fs::create_dir(path("in")).unwrap();
    fs::write(path("in/good"), "fine").unwrap();
    fs::write(path("in/bad"), vec![0x5a; 100_000]).unwrap();
    run_line(&["import", &image, &path("in")]).unwrap();
    // The large value is the only one with pages full of this byte.
    let mut bytes = fs::read(&image).unwrap();
    let page = bytes.chunks(4096).position(|page| page.iter().all(|byte| *byte == 0x5a)).unwrap();
    bytes[page * 4096] = 0;
    fs::write(&image, bytes).unwrap();
    assert_eq!(run_line(&["check", &image]).unwrap(), ExitCode::FAILURE);
    assert!(run_line(&["export", &image, &path("out")]).unwrap_err().to_string().contains("1 values"));
    assert_eq!(fs::read(path("out/good")).unwrap(), b"fine");
    assert!(run_line(&["get", &image, "bad"]).unwrap_err().to_string().contains("'bad'"));
}

#[test]
fn slips_are_said_and_leave_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("disk.img").to_str().unwrap().to_owned();
    let error = |line: &[&str]| format!("{:#}", run_line(line).unwrap_err());
    for line in [&["format", &image][..], &["ls", &image], &["rm", &image, "key"]] {
        assert!(error(line).ends_with(&format!("cargo xtask kv format {image} --create 64M")));
    }
    assert!(error(&["format", &image, "--create", "1K"]).contains("needs 262144"));
    assert!(error(&["format", &image, "--create", "1000"]).contains("block aligned"));
    assert!(!Path::new(&image).exists());
    run_line(&["format", &image, "--create", "1M"]).unwrap();
    assert_eq!(error(&["rm", &image, "nothing"]), "there is nothing at 'nothing'");
    assert_eq!(error(&["ls", &image, "nothing"]), "there is nothing at 'nothing'");
}

/// Others may read what is read; what is written is the writer's alone.
#[test]
fn a_disk_in_use_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("disk.img");
    let text = image.to_str().unwrap();
    let error = |line: &[&str]| format!("{:#}", run_line(line).unwrap_err());
    run_line(&["format", text, "--create", "1M"]).unwrap();
    let reader = BlockDevice::open_read_only("disk", &image, 512).unwrap();
    run_line(&["ls", text]).unwrap();
    for line in [&["format", text, "--force"][..], &["check", text], &["rm", text, "a"]] {
        assert!(error(line).starts_with(&format!("{text}: another program has it open")), "{line:?}");
    }
    drop(reader);
    let writer = BlockDevice::open("disk", &image, 512).unwrap();
    assert!(error(&["ls", text]).contains("end that one first"));
    drop(writer);
    assert_eq!(run_line(&["check", text]).unwrap(), ExitCode::SUCCESS);
}

#[test]
fn sizes_have_units() {
    assert_eq!([size("512"), size("64M"), size("2G")], [Ok(512), Ok(64 << 20), Ok(2 << 30)]);
    assert!(size("x").is_err() && size("99999999999G").is_err() && size("1T").is_err());
}
