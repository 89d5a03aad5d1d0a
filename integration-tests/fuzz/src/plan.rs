//! Whatever stands in an offset's metadata → a plan, none, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use outpour_consumer::plan::Plan;

fuzz_target!(|text: &str| {
    if let Ok(Some(plan)) = Plan::parse(text) {
        let metadata = plan.metadata().expect("a plan can be written");
        let back = Plan::parse(&metadata).expect("and read").expect("as a plan");
        assert_eq!(back.metadata().expect("again"), metadata);
        assert!(back.rejected.iter().take(1000).eq(plan.rejected.iter().take(1000)));
    }
});
