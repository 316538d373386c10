//! Fields as they are written.

fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn field(at: u32, wire: u64, value: &[u8]) -> Vec<u8> {
    [&number(u64::from(at) << 3 | wire), value].concat()
}

pub(super) fn varint(at: u32, value: u64) -> Vec<u8> {
    field(at, 0, &number(value))
}

pub(super) fn eight(at: u32, value: u64) -> Vec<u8> {
    field(at, 1, &value.to_le_bytes())
}

pub(super) fn bytes(at: u32, value: &[u8]) -> Vec<u8> {
    field(at, 2, &[&number(value.len() as u64), value].concat())
}

pub(super) fn text(at: u32, value: &str) -> Vec<u8> {
    bytes(at, value.as_bytes())
}

pub(super) fn group(at: u32, fields: &[Vec<u8>]) -> Vec<u8> {
    [field(at, 3, &fields.concat()), field(at, 4, &[])].concat()
}

pub(super) fn four(at: u32, value: u32) -> Vec<u8> {
    field(at, 5, &value.to_le_bytes())
}
