//! Removing what was built.

use anyhow::Context as _;

use crate::application::Application;
use crate::files;
use crate::progress::Progress;
use crate::resolve::Target;
use crate::workspace::Workspace;

/// Removes the images and generated crates of one application, or everything that was built in this workspace.
pub(crate) fn clean(workspace: &Workspace, app: Option<&str>, progress: &Progress) -> anyhow::Result<()> {
    let mut places = Vec::new();
    match app {
        Some(app) => {
            let application = Application::find(workspace, app).context("nothing was removed")?;
            for target in Target::ALL {
                let image = application.dist().join(format!("{}.{target}", application.name()));
                places.push(application.work().join(format!("{}-{target}", application.name())));
                places.push(image.with_extension(format!("{target}.debug")));
                places.push(image.with_extension(format!("{target}.config")));
                places.push(image);
            }
            if !application.is_example {
                places.push(application.work());
            }
        }
        None => places.extend([workspace.root().join("target/fogbow"), workspace.root().join("dist")]),
    }
    let mut removed = 0;
    for place in &places {
        if files::remove(place)? {
            removed += 1;
            progress.say("Removed", files::display(place));
        }
    }
    if removed == 0 {
        progress.say("Removed", "nothing: nothing was built");
    }
    Ok(())
}
