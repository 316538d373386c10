//! Files that a store doesn't take: their window is told of, and the line goes on with the next.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use aperio::line::{LineWindow, NewSinks, Order, Reply};
use aperio::table::WindowId;
use aperio::write::{FileSink, FileSinks, Finishing, MemorySinks, Passing};
use iceberg::spec::FormatVersion;
use uuid::Uuid;

use crate::stored::{chunk, create, line};

/// Where a store refuses a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum At {
    Start,
    Bytes,
    End,
}

/// Takes files once it has refused so many.
struct Sinks {
    refused: Arc<AtomicUsize>,
    at: At,
    taking: MemorySinks,
}

struct Refusing(At);

fn passing() -> io::Error {
    io::Error::other(Passing("403".into()))
}

impl FileSinks for Sinks {
    fn open(&mut self, path: &str) -> io::Result<Box<dyn FileSink>> {
        let refuses = |left: usize| left.checked_sub(1);
        let refused = self.refused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, refuses);
        match (refused, self.at) {
            (Ok(_), At::Start) => Err(passing()),
            (Ok(_), at) => Ok(Box::new(Refusing(at))),
            (Err(_), _) => self.taking.open(path),
        }
    }
}

impl io::Write for Refusing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0 {
            At::Bytes => Err(passing()),
            _ => Ok(bytes.len()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FileSink for Refusing {
    fn finish(self: Box<Self>) -> Finishing {
        Finishing::new(|| Err(passing()))
    }
}

#[tokio::test]
async fn a_window_that_cannot_be_written_and_those_behind_it_are_told_of_and_the_next_is_written() {
    let directory = tempfile::tempdir().expect("a temporary folder");
    let (_, table) = create(&directory, FormatVersion::V2).await;
    for at in [At::Start, At::Bytes, At::End] {
        let refused = Arc::new(AtomicUsize::new(1));
        let sinks = move || NewSinks {
            unique: Uuid::from_u128(7),
            sinks: Box::new(Sinks {
                refused: Arc::clone(&refused),
                at,
                taking: MemorySinks::default(),
            }),
        };
        let id = |sequence| WindowId {
            run: Uuid::nil(),
            sequence,
        };
        let take = |sequence| Order::Take {
            window: id(sequence),
            chunk: chunk(),
            ticket: Box::new(()),
        };
        let (orders, inbox) = mpsc::channel();
        // What the run has sent before it hears of window 0, and then what it does about it.
        let sent = [take(0), Order::Seal(id(0)), take(1), Order::Seal(id(1))];
        let answered = [Order::Drop(id(0)), Order::Drop(id(1)), take(2), Order::Seal(id(2))];
        for order in sent.into_iter().chain(answered) {
            orders.send(order).expect("the line waits");
        }
        drop(orders);
        let mut sealed: Vec<LineWindow> = Vec::new();
        line(&table, Box::new(sinks)).work(inbox, |reply| match reply {
            Reply::Sealed(window) => sealed.push(*window),
            Reply::Failed(error) => panic!("{at:?}: {error}"),
            _ => {}
        });
        let told: Vec<_> = sealed.iter().map(|window| window.unwritten.is_some()).collect();
        assert_eq!(told, [true, true, false], "{at:?}");
        assert!(sealed[1].files.is_empty() && sealed[1].tally.rows == 0, "{at:?}");
        assert_eq!((sealed[2].files.len(), sealed[2].tally.rows), (1, 3), "{at:?}");
    }
}
