//! Instances of one pipeline come and go while a large topic is read: every record once.

use serde_json::json;

use crate::aperio::{Aperio, Workspace};
use crate::produce::{self, Record};
use crate::readers::{self, Catalog};
use crate::servers::Kafka;

const RECORDS: u64 = 400_000;
const TOPIC: &str = "rebalanced";

#[test]
fn instances_that_come_and_go_read_every_record_once() {
    let kafka = Kafka::shared();
    produce::create_topic(kafka, TOPIC, 6, &[]);
    let record = |n: u64| Record::of(format!(r#"{{"id":{n},"text":"{n:0100}"}}"#)).partition((n % 6) as i32);
    let produce = |from: u64, to: u64| produce::produce(kafka, TOPIC, (from..to).map(record));
    produce(0, RECORDS / 2);
    let work = Workspace::new(&format!(
        "partitionedTables:\n  - name: rebalanced\n    source:\n      brokers: \"{}\"\n      topic: {TOPIC}\n      format: json\n      \
         batchSize: 20000\n      batchWindow: 1 second\n      maxPollRecords: 500\n      \
         consumerConfig: {{session.timeout.ms: \"6000\"}}\n",
        kafka.brokers()
    ));
    let service = || Aperio::start(work.path(), &["run", "pipeline.yaml"]);
    let mut first = service();
    assert!(first.wait_for("committed"), "it serves");
    let mut second = service();
    assert!(second.wait_for("partitions assigned"), "it serves");
    produce(RECORDS / 2, RECORDS * 3 / 4);
    assert!(second.wait_for("committed"), "it serves");
    // One leaves as it should, the next in the middle of everything.
    second.signal(libc::SIGTERM).expect_code(0);
    let mut third = service();
    assert!(third.wait_for("partitions assigned"), "it serves");
    produce(RECORDS * 3 / 4, RECORDS);
    third.kill();
    first.signal(libc::SIGTERM).expect_code(0);
    work.start_once(&[]).wait().expect_code(0);

    let columns = "count(*) as n, count(distinct id) as ids, min(id) as first, max(id) as last, \
        count(distinct (_kafka_partition, _kafka_offset)) as offsets";
    let found = readers::select(&Catalog::sql(&work.warehouse()), "default.rebalanced", columns);
    let expected = json!({"n": RECORDS, "ids": RECORDS, "first": 0, "last": RECORDS - 1, "offsets": RECORDS});
    assert_eq!(found, [expected]);
}
