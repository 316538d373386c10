//! Integers of seven bits a byte, the lowest first, as Avro and Protobuf write them.

/// The most bytes of an integer of 64 bits.
pub(super) const BYTES_MAX: usize = 10;

/// The high bit of each byte: it says that another byte follows.
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Reads the integer at the beginning of `bytes`; returns it, and how many bytes it has: none if it doesn't end there, or has
/// more than 64 bits.
#[inline]
pub(super) fn read(bytes: &[u8]) -> (u64, usize) {
    let Some(word) = bytes.first_chunk() else {
        return one_by_one(bytes);
    };
    let word = u64::from_le_bytes(*word);
    let ends = !word & HIGH;
    if ends == 0 {
        return one_by_one(bytes);
    }
    // All bytes up to the first one that ends the integer; then pairs of 7 bits, of 14 and of 28 are moved together.
    let word = word & (ends ^ (ends - 1)) & !HIGH;
    let word = word & 0x007F_007F_007F_007F | (word & 0x7F00_7F00_7F00_7F00) >> 1;
    let word = word & 0x0000_3FFF_0000_3FFF | (word & 0x3FFF_0000_3FFF_0000) >> 2;
    let word = word & 0x0000_0000_0FFF_FFFF | (word & 0x0FFF_FFFF_0000_0000) >> 4;
    (word, ends.trailing_zeros() as usize / 8 + 1)
}

fn one_by_one(bytes: &[u8]) -> (u64, usize) {
    let mut value = 0;
    for (count, byte) in bytes.iter().take(BYTES_MAX).enumerate() {
        // Of the tenth byte one bit is left.
        if count == 9 && *byte > 1 {
            break;
        }
        value |= u64::from(*byte & 0x7F) << (7 * count);
        if *byte < 0x80 {
            return (value, count + 1);
        }
    }
    (0, 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_word_at_a_time_reads_the_same_as_byte_after_byte(
            mut bytes in prop::collection::vec(any::<u8>(), 0..14), continued in 0..12usize,
        ) {
            bytes.iter_mut().take(continued).for_each(|byte| *byte |= 0x80);
            prop_assert_eq!(read(&bytes), one_by_one(&bytes));
        }
    }

    #[test]
    fn integers_end_within_64_bits_and_within_the_bytes() {
        let check = |bytes: &[u8], expect| {
            assert_eq!(read(bytes), expect, "{bytes:?}");
            let followed = [bytes, &[0xFF; 12]].concat();
            if expect.1 > 0 {
                assert_eq!(read(&followed), expect, "{followed:?}");
            }
        };
        check(&[], (0, 0));
        check(&[0x80], (0, 0));
        check(&[5], (5, 1));
        check(&[0xAC, 2], (300, 2));
        check(&[0x80, 0x80, 0], (0, 3));
        check(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], ((1 << 56) - 1, 8));
        check(
            &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1],
            (u64::MAX, 10),
        );
        check(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2], (0, 0));
        check(&[0x80; 11], (0, 0));
    }
}
