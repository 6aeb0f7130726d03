//! The output folder: every file is whole or absent.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A folder whose files are written under temporary names and renamed when they are complete.
/// What is dropped before [`PendingFile::keep`] leaves nothing behind.
#[derive(Debug)]
pub struct OutputFolder {
    path: PathBuf,
}

impl OutputFolder {
    /// Opens the folder, making it where it does not exist.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<OutputFolder> {
        let path = path.into();
        std::fs::create_dir_all(&path)?;
        Ok(OutputFolder { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a file; `name` may name a folder within, such as `charts/queue.svg`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn begin(&self, name: &str) -> io::Result<PendingFile> {
        let target = self.path.join(name);
        let parent = target.parent().expect("a file within a folder has a parent");
        std::fs::create_dir_all(parent)?;
        let file = tempfile::Builder::new().prefix(".plimsoll-").tempfile_in(parent)?;
        Ok(PendingFile { out: BufWriter::with_capacity(1 << 16, file), target })
    }

    /// Writes a whole file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut file = self.begin(name)?;
        file.write_all(content)?;
        file.keep()
    }
}

/// A file that does not bear its name yet.
#[derive(Debug)]
pub struct PendingFile {
    out: BufWriter<NamedTempFile>,
    target: PathBuf,
}

impl PendingFile {
    /// The file is complete: gives it its name.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn keep(self) -> io::Result<()> {
        let file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        readable_by_all(&file)?;
        file.persist(self.target).map_err(|error| error.error)?;
        Ok(())
    }
}

/// Temporary files are private; a report is an ordinary file.
#[cfg(unix)]
fn readable_by_all(file: &NamedTempFile) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))
}
#[cfg(not(unix))]
fn readable_by_all(_: &NamedTempFile) -> io::Result<()> {
    Ok(())
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_whole_or_absent() {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let folder = OutputFolder::create(scratch.path().join("a/b")).expect("a folder");
        let names = || {
            let entries = std::fs::read_dir(folder.path()).expect("a folder");
            let mut names: Vec<String> = entries
                .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
                .filter(|name| !name.starts_with('.'))
                .collect();
            names.sort();
            names
        };
        let mut pending = folder.begin("requests.csv").expect("a file");
        pending.write_all(b"half").expect("room");
        assert!(names().is_empty());
        drop(pending);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
        folder.write("summary.json", b"{}").expect("room");
        folder.write("charts/queue.svg", b"<svg/>").expect("room");
        assert_eq!(names(), ["charts", "summary.json"]);
        assert_eq!(std::fs::read(folder.path().join("summary.json")).expect("the file"), b"{}");
    }
}
