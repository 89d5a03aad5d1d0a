//! Chance that can be had again from its seed (SplitMix64).

pub(super) struct Dice {
    state: u64,
    /// One of so many values, or of so many ways to go wrong, does not fit.
    misfits: usize,
}

impl Dice {
    pub(super) fn new(seed: u64, misfits: usize) -> Self {
        Dice { state: seed, misfits }
    }

    pub(super) fn is_misfit(&mut self) -> bool {
        self.rare() == 0
    }

    /// 0 is rare.
    pub(super) fn rare(&mut self) -> usize {
        self.below(self.misfits)
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.bits() % end as u64) as usize
    }

    pub(super) fn between(&mut self, first: i64, last: i64) -> i64 {
        first + (self.bits() % (last - first + 1) as u64) as i64
    }

    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// So many decimal digits, the first of them no zero.
    pub(super) fn digits(&mut self, count: usize) -> String {
        (0..count)
            .map(|at| char::from(b'0' + (self.below(10).max(usize::from(at == 0))) as u8))
            .collect()
    }
}
