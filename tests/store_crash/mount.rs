//! Small disks of the test's own. They are mounted where nobody else sees them, and vanish with the last
//! process that does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system, until it is dropped.
#[derive(Debug)]
pub(crate) struct Mounted {
    at: PathBuf,
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl Mounted {
    fn mount(what: &str, at: PathBuf, options: &[&str]) -> Self {
        fs::create_dir_all(&at).unwrap();
        run("mount", &[options, &[what, text(&at)]].concat());
        Self { at }
    }

    /// Below `dir`.
    pub(crate) fn tmpfs(dir: &Path, mib: u64) -> Self {
        let size = format!("size={mib}m");
        Self::mount("tidegate", dir.join("disk"), &["-t", "tmpfs", "-o", &size])
    }

    /// Below `dir`, in an image there.
    pub(crate) fn ext4(dir: &Path, mib: u64) -> Self {
        let image = dir.join("image");
        fs::File::create(&image).unwrap().set_len(mib << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", text(&image)]);
        Self::image(&image, &dir.join("disk"))
    }

    /// The file system in an image.
    pub(crate) fn image(image: &Path, at: &Path) -> Self {
        Self::mount(text(image), at.to_owned(), &["-o", "loop"])
    }

    pub(crate) fn path(&self) -> &Path {
        &self.at
    }

    pub(crate) fn unmount(self) {
        run("umount", &[text(&self.at)]);
        std::mem::forget(self);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", text(&self.at)]).output();
    }
}
