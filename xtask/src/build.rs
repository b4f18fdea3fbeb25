//! From an application to an image in `dist/`: find, resolve, generate, compile, check, deliver.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};

use crate::application::Application;
use crate::cli::BuildArgs;
use crate::progress::{self, Progress};
use crate::resolve::{Resolved, Target};
use crate::verify::{self, Verified};
use crate::workspace::Workspace;
use crate::{compile, disk, files, generate, genode, libvirt, muen, run};

/// A built image, or on unix a program.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) application: Application,
    pub(crate) resolved: Resolved,
    /// The generated crate.
    pub(crate) generated: PathBuf,
    /// `dist/NAME.TARGET`.
    pub(crate) path: PathBuf,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// What the checks found; `None` for a program.
    pub(crate) verified: Option<Verified>,
}

/// Builds an application.
pub(crate) fn build(workspace: &Workspace, args: &BuildArgs, progress: &Progress) -> anyhow::Result<Built> {
    let (application, resolved) = resolve(workspace, args)?;
    let generated = generate::generate(workspace, &application, &resolved)?;
    progress.say("Building", format_args!("{} for {} ({})", application.name(), args.target, files::display(&generated.directory)));
    let linked = compile::compile(workspace, &application, args.target, &generated, args.debug, progress)?;
    let bytes = fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?;
    let stripped = compile::strip(&linked)?;
    let verified = if args.target.is_image() {
        let rejected = || format!("{} is no image for {}, and is not delivered", files::display(&linked), args.target);
        Some(verify::verify(&bytes, &stripped, &resolved).with_context(rejected)?)
    } else {
        None
    };
    let path = application.dist().join(format!("{}.{}", application.name(), args.target));
    compile::install(&path, &stripped)?;
    compile::install(&path.with_extension(format!("{}.debug", args.target)), &bytes)?;
    if args.target.is_shared_object() {
        let file = path.file_name().unwrap_or_default().display().to_string();
        files::write_if_changed(&path.with_extension(format!("{}.config", args.target)), genode::configuration(&resolved, &file))?;
    }
    if let (Target::Muen, Some(verified)) = (args.target, &verified) {
        let file = path.file_name().unwrap_or_default().display().to_string();
        files::write_if_changed(&path.with_extension("muen.xml"), muen::description(&resolved, &file, &verified.layout))?;
    }
    let size = stripped.len() as u64;
    progress.say("Built", format_args!("{}, {}, in {}", files::display(&path), progress::size(size), progress.elapsed()));
    Ok(Built { application, resolved, generated: generated.directory, path, size, verified })
}

/// The application, and its devices as they are chosen: what can be wrong with these is told before anything is built.
pub(crate) fn resolve(workspace: &Workspace, args: &BuildArgs) -> anyhow::Result<(Application, Resolved)> {
    let mut application = Application::find(workspace, &args.app)?;
    args.fix(&mut application.manifest)?;
    let resolved = Resolved::new(&application.manifest, args.target, &args.stack)
        .with_context(|| format!("{} cannot be built for {}", application.name(), args.target))?;
    Ok((application, resolved))
}

/// Writes the disk that boots an image with these arguments, and gives its path.
pub(crate) fn disk(built: &Built, arguments: &[String], progress: &Progress) -> anyhow::Result<PathBuf> {
    let target = built.resolved.target;
    ensure!(target == Target::Virtio, "--disk is for virtio, whose machines boot disks: {target} has no such thing");
    let image = fs::read(&built.path).with_context(|| format!("cannot read {}", built.path.display()))?;
    let bytes = disk::disk(&built.path, &image, arguments)?;
    let path = built.path.with_extension(format!("{target}.img"));
    files::write_if_changed(&path, &bytes)?;
    progress.say("Wrote", format_args!("{}, {}", files::display(&path), progress::size(bytes.len() as u64)));
    Ok(path)
}

/// Writes the description of a machine for libvirt that starts an image with these arguments.
pub(crate) fn libvirt(built: &Built, arguments: &[String], progress: &Progress) -> anyhow::Result<()> {
    let image = std::path::absolute(&built.path).with_context(|| format!("cannot find {}", built.path.display()))?;
    let path = built.path.with_extension("virtio.libvirt.xml");
    files::write_if_changed(&path, libvirt::domain(&built.resolved, &image, &run::line(arguments)?))?;
    progress.say("Wrote", files::display(&path));
    Ok(())
}
