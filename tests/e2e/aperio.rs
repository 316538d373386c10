//! Running the binary under test, and killing it.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::Value;

use super::setup;

const RUN_LIMIT: Duration = setup::PATIENCE; // most runs take a second or two, and one that hangs is given up after 41

/// How a run ended and what it printed.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The report of `--output json`.
    pub fn report(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("no JSON report ({error}): {self:#?}"))
    }

    /// Fails the test, with everything that was printed, unless the exit code is this one.
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }
}

/// A running `aperio`; dropped, it is killed.
pub struct Aperio {
    child: Child,
    stdout: Option<JoinHandle<()>>,
    stderr: Option<JoinHandle<()>>,
    printed: Arc<Mutex<[String; 2]>>,
}

impl Aperio {
    /// Starts it in `dir` with `args`; no variable named APERIO_*, AWS_* or RUST_LOG reaches it.
    pub fn start(dir: &Path, args: &[&str]) -> Self {
        Self::start_with(dir, args, &[])
    }

    /// The same with these environment variables.
    pub fn start_with(dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_under(&[], dir, args, variables)
    }

    /// The same, started by another program: `under` and its arguments, to which the binary and `args` are added.
    pub fn start_under(under: &[&str], dir: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        let binary = env!("CARGO_BIN_EXE_aperio");
        let mut command = match under {
            [] => Command::new(binary),
            [program, more @ ..] => {
                let mut command = Command::new(program);
                command.args(more).arg(binary);
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("APERIO_") || text.starts_with("AWS_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.current_dir(dir).args(args).envs(variables.iter().copied());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = setup::spawn(command);
        let printed = Arc::new(Mutex::new([String::new(), String::new()]));
        let stdout = collect(child.stdout.take().expect("piped"), Arc::clone(&printed), 0);
        let stderr = collect(child.stderr.take().expect("piped"), Arc::clone(&printed), 1);
        Self {
            child,
            stdout: Some(stdout),
            stderr: Some(stderr),
            printed,
        }
    }

    /// What was printed so far on standard output and standard error.
    pub fn printed(&self) -> [String; 2] {
        self.printed.lock().expect("no panic holds the text").clone()
    }

    /// Starts it and waits until it ends.
    pub fn run(dir: &Path, args: &[&str]) -> Outcome {
        Self::start(dir, args).wait()
    }

    /// Waits until it ends by itself.
    pub fn wait(mut self) -> Outcome {
        let mut ended = None;
        setup::wait_until(RUN_LIMIT, || {
            ended = self.child.try_wait().expect("the child can be asked");
            ended.is_some()
        });
        let Some(status) = ended else {
            let printed = self.printed.lock().expect("no panic holds the text").clone();
            panic!("aperio still runs after {RUN_LIMIT:?}; it printed: {printed:#?}");
        };
        self.outcome(status)
    }

    /// Waits until a line that holds `text` was printed on either stream; `false` if it ended first.
    pub fn wait_for(&mut self, text: &str) -> bool {
        let holds = |printed: &Mutex<[String; 2]>| {
            printed
                .lock()
                .expect("no panic holds the text")
                .iter()
                .any(|stream| stream.contains(text))
        };
        let mut ended = false;
        let found = setup::wait_until(RUN_LIMIT, || {
            let found = holds(&self.printed);
            ended = !found && self.child.try_wait().expect("the child can be asked").is_some();
            found || ended
        });
        assert!(found, "no `{text}` within {RUN_LIMIT:?}");
        if ended {
            // Its last words may still have been on their way.
            self.stdout.take().map(JoinHandle::join);
            self.stderr.take().map(JoinHandle::join);
        }
        holds(&self.printed)
    }

    /// Says whether a line that holds `text` was printed on either stream.
    pub fn has_printed(&self, text: &str) -> bool {
        let printed = self.printed.lock().expect("no panic holds the text");
        printed.iter().any(|stream| stream.contains(text))
    }

    /// Says whether it has ended.
    pub fn ended(&self) -> bool {
        matches!(setup::state(&self.child), None | Some('Z'))
    }

    /// Waits until it has stopped itself by SIGSTOP.
    pub fn wait_stopped(&self) {
        let stopped = setup::wait_until(RUN_LIMIT, || {
            assert!(!self.ended(), "it ended: {:#?}", self.printed.lock());
            setup::state(&self.child) == Some('T')
        });
        assert!(
            stopped,
            "it doesn't stop within {RUN_LIMIT:?}: {:#?}",
            self.printed.lock()
        );
    }

    /// Stops it by SIGSTOP, wherever it is.
    pub fn freeze(&self) {
        setup::signal(&self.child, libc::SIGSTOP);
        self.wait_stopped();
    }

    /// Lets it go on after [`Aperio::wait_stopped`].
    pub fn go_on(self) -> Self {
        setup::signal(&self.child, libc::SIGCONT);
        self
    }

    /// The names of its threads, of 15 bytes at most each.
    pub fn threads(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).ok();
        // A thread may end meanwhile.
        tasks
            .filter_map(|task| name(task.ok()?))
            .map(|name| name.trim().to_owned())
            .collect()
    }

    /// The CPU time that it has used so far.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        // User and system time, in ticks of 10 ms. Source: proc(5), fields 14 and 15.
        let ticks: f64 = fields
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<f64>().ok())
            .sum();
        ticks / 100.0
    }

    /// Sends a signal such as `libc::SIGTERM` and waits for the end.
    pub fn signal(self, signal: i32) -> Outcome {
        setup::signal(&self.child, signal);
        self.wait()
    }

    /// `kill -9` now.
    pub fn kill(self) -> Outcome {
        self.signal(libc::SIGKILL)
    }

    /// `kill -9` after this time, if it still runs.
    pub fn kill_after(self, delay: Duration) -> Outcome {
        std::thread::sleep(delay);
        self.kill()
    }

    /// `kill -9` as soon as a line that holds `text` is printed, or its own end if it ends before.
    pub fn kill_when(mut self, text: &str) -> Outcome {
        self.wait_for(text);
        self.kill()
    }

    fn outcome(&mut self, status: std::process::ExitStatus) -> Outcome {
        self.stdout.take().map(JoinHandle::join);
        self.stderr.take().map(JoinHandle::join);
        let [stdout, stderr] = self.printed.lock().expect("no panic holds the text").clone();
        Outcome {
            code: status.code(),
            signal: status.signal(),
            stdout,
            stderr,
        }
    }
}

impl Drop for Aperio {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            setup::kill_group(&mut self.child);
        }
    }
}

fn collect(stream: impl Read + Send + 'static, printed: Arc<Mutex<[String; 2]>>, index: usize) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            printed.lock().expect("no panic holds the text")[index].push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
    })
}

/// A folder with one pipeline file, `pipeline.yaml`, and whatever it makes; gone with the value.
pub struct Workspace {
    dir: tempfile::TempDir,
}

impl Workspace {
    /// Writes `yaml` into a new folder.
    pub fn new(yaml: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("aperio-e2e-")
            .tempdir()
            .expect("a temporary folder");
        std::fs::write(dir.path().join("pipeline.yaml"), yaml).expect("the pipeline file can be written");
        Self { dir }
    }

    /// Writes the pipeline file anew; the table stays.
    pub fn rewrite(&self, yaml: &str) {
        std::fs::write(self.path().join("pipeline.yaml"), yaml).expect("the pipeline file can be written");
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The warehouse of the default catalog.
    pub fn warehouse(&self) -> PathBuf {
        self.path().join("warehouse")
    }

    /// The metadata files of a table in the namespace `default`, ascending.
    pub fn metadata_files(&self, table: &str) -> Vec<PathBuf> {
        let folder = self.warehouse().join("default").join(table).join("metadata");
        let files = std::fs::read_dir(folder).expect("the metadata folder");
        let mut files: Vec<_> = files
            .map(|file| file.expect("a file").path())
            .filter(|file| file.to_string_lossy().ends_with(".metadata.json"))
            .collect();
        files.sort();
        files
    }

    /// What the current metadata file of a table says.
    pub fn metadata(&self, table: &str) -> Value {
        let file = self.metadata_files(table).pop().expect("a metadata file");
        let file = std::fs::File::open(file).expect("it can be read");
        serde_json::from_reader(GzDecoder::new(file)).expect("packed JSON")
    }

    /// Overwrites the current metadata file of a table.
    pub fn set_metadata(&self, table: &str, metadata: &Value) {
        let file = self.metadata_files(table).pop().expect("a metadata file");
        let file = std::fs::File::create(file).expect("it can be written");
        let mut file = GzEncoder::new(file, Compression::default());
        serde_json::to_writer(&mut file, metadata).expect("written");
        file.finish().expect("written");
    }

    /// Starts `aperio run --once pipeline.yaml` with more arguments.
    pub fn start_once(&self, more: &[&str]) -> Aperio {
        Aperio::start(self.path(), &[&["run", "--once", "pipeline.yaml"], more].concat())
    }
}
