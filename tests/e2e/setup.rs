//! Where `make setup` put the servers and readers, and starting processes that can't outlive the tests.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Mutex, Once, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// What can be set up, with the lock file that says which version of it these tests want.
const PARTS: [(&str, &str); 7] = [
    ("python", include_str!("../setup/requirements.txt")),
    ("kafka", include_str!("../setup/kafka/jars.lock")),
    ("rest", include_str!("../setup/rest/jars.lock")),
    ("nessie", include_str!("../setup/nessie/jars.lock")),
    ("registry", include_str!("../setup/registry/jars.lock")),
    ("s3", include_str!("../setup/s3/requirements.txt")),
    ("spark", include_str!("../setup/spark/jars.lock")),
];

/// The folder of a part of the set-up: `python`, `kafka`, `rest`, `nessie`, `registry`, `s3` or `spark`.
///
/// # Panics
/// If it isn't there, or not in the version that the lock file names: a missing server fails the test.
pub fn part(name: &str) -> PathBuf {
    let (_, lock) = PARTS.iter().find(|(part, _)| *part == name).expect("a known part");
    let dir = cache().join(name);
    match std::fs::read_to_string(dir.join("complete")) {
        Ok(installed) if installed == *lock => dir,
        Ok(_) => panic!("`{name}` in {} is of another version: run `make setup`", dir.display()),
        Err(_) => panic!("`{name}` isn't set up in {}: run `make setup`", dir.display()),
    }
}

/// The Java runtime that came with the Python packages.
pub fn java() -> PathBuf {
    part("python");
    cache().join("java/bin/java")
}

/// The home of a `java` that Spark can start.
pub fn java_home_for_spark() -> PathBuf {
    part("python");
    cache().join("java-for-spark")
}

fn cache() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
    base.unwrap_or_else(home).join("aperio")
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts a process in its own group that the kernel kills when this process ends, however it ends.
///
/// The parent-death signal is bound to the *thread* that forks, and a test's thread ends with its test; so one thread
/// that lives as long as the process does all the forking.
pub fn spawn(mut command: Command) -> Child {
    static FORKER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let forker = FORKER.get_or_init(|| {
        let (orders, queue) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in queue {
                // A caller that went away has no use for the child either; there is none: `spawn` waits below.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    command.process_group(0);
    // SAFETY: prctl is async-signal-safe and touches nothing of ours.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let program = command.get_program().to_owned();
    let (answer, started) = mpsc::channel();
    forker
        .lock()
        .expect("no panic holds the forker")
        .send((command, answer))
        .expect("the forker runs");
    let child = started.recv().expect("the forker answers");
    child.unwrap_or_else(|error| panic!("`{}` doesn't start: {error}", program.display()))
}

/// Kills a process that [`spawn`] started, with its whole group, and reaps it.
pub fn kill_group(child: &mut Child) {
    let group = i32::try_from(child.id()).expect("process ids are small");
    // SAFETY: no memory involved. The child isn't reaped yet, so the id is still its own.
    unsafe { libc::kill(-group, libc::SIGKILL) };
    child.wait().expect("the child can be waited for");
}

/// Sends a signal to a process that [`spawn`] started and that isn't reaped yet.
pub fn signal(child: &Child, signal: i32) {
    let id = i32::try_from(child.id()).expect("process ids are small");
    // SAFETY: no memory involved. The child isn't reaped yet, so the id is still its own.
    unsafe { libc::kill(id, signal) };
}

/// The kernel's letter for what a process does; `None` if there is no such process.
pub fn state(child: &Child) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    // After the name, which is in parentheses and may hold anything.
    stat.rsplit(") ").next()?.chars().next()
}

type Act = Box<dyn FnOnce() + Send>;

/// Does this when this process ends: a static isn't dropped, and one with a folder would leave that behind.
pub fn at_exit(act: impl FnOnce() + Send + 'static) {
    static ACTS: Mutex<Vec<Act>> = Mutex::new(Vec::new());
    static REGISTERED: Once = Once::new();
    extern "C" fn do_all() {
        // Nobody is left to be told of a panic, nor of one that held the acts.
        let acts = std::mem::take(&mut *ACTS.lock().unwrap_or_else(PoisonError::into_inner));
        acts.into_iter().for_each(|act| act());
    }
    ACTS.lock().expect("no panic holds the acts").push(Box::new(act));
    // SAFETY: the function is `extern "C"`, takes nothing and doesn't unwind in any way that matters at exit.
    REGISTERED.call_once(|| _ = unsafe { libc::atexit(do_all) });
}

/// How long anything is waited for that takes seconds on a quiet machine: only a test that fails waits so long.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A TCP port of loopback that is free now, each given out once: a server that is started again finds its own still free.
///
/// Below those that the kernel gives to whoever binds port 0 (`ip_local_port_range`), and apart from other test processes.
pub fn free_port() -> u16 {
    const PORTS: u16 = 400;
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + u16::try_from(std::process::id() % 50).expect("below 50") * PORTS;
    let mut next = (0..PORTS).map(|_| first + GIVEN.fetch_add(1, Ordering::Relaxed) % PORTS);
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    next.find(free).expect("loopback has a free port")
}

/// Waits until `ready` holds; `false` when `limit` passed first.
pub fn wait_until(limit: Duration, mut ready: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < limit {
        if ready() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    ready()
}

/// Plays of runs that are killed or frozen, at once; most of the time they wait for Kafka to notice it.
const PLAYS_AT_ONCE: usize = 5;

/// Plays each of `plays`, by its number and itself, several at a time; returns what came of them, in no order.
pub fn play_all<P: Copy + Sync, T: Send>(plays: &[P], play: impl Fn(usize, P) -> T + Sync) -> Vec<T> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..PLAYS_AT_ONCE {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = plays.get(number) else { return };
                    let outcome = play(number, *one);
                    done.lock().expect("nobody panics with it").push(outcome);
                }
            });
        }
    });
    let done = done.into_inner().expect("nobody panicked with it");
    assert_eq!(done.len(), plays.len());
    done
}
