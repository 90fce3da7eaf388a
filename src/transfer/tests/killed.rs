//! A move that is cut short leaves nothing that a server would start on, and is begun anew.

use super::world::Home;
use super::world::Redis;
use super::world::Running;
use super::world::moved;
use super::world::moved_until;
use crate::store::embedded;
use crate::store::redis::Store;
use crate::transfer::MoveError;

#[test]
fn a_move_that_is_killed_at_any_step_is_begun_anew() {
    for (seed, redis) in (20..).zip(Redis::both()) {
        let home = Home::new(seed);
        let twin = home.twin("data");
        let control = Running::directory(&twin, &twin.join("archive"));
        let expected = control.answers();
        let open = || Store::open(redis.link(), redis.keys.clone(), 1, 1);
        let there = home.there("data", &redis);
        let mut steps = 0;
        let mut made = 0;
        loop {
            steps += 3;
            match moved_until(&there, steps) {
                Err(MoveError::GivenUp) => {}
                Ok(report) => {
                    assert!(report.is_same());
                    break;
                }
                Err(error) => panic!("{error:?}"),
            }
            // Before anything is copied there is no store.
            if Store::find(redis.link(), redis.keys.clone()).map_or(true, |store| store.is_some()) {
                made += 1;
                let error = open().unwrap_err().to_string();
                assert!(error.contains("half of a store"), "{error}");
            }
        }
        assert!(made > 5, "{made} of {steps}");
        let running = Running::redis(&redis, &home.path("data.away"));
        assert_eq!(running.answers(), expected, "{}", redis.name);
        running.stop();

        let back = home.back("data", "other", &redis);
        let other = home.path("other");
        for steps in [1, 4, 9, 12, 15, 17] {
            assert!(matches!(moved_until(&back, steps), Err(MoveError::GivenUp)), "{steps}");
            if other.join("state.redb").exists() {
                let error = embedded::State::open(&other, 1).unwrap_err().to_string();
                assert!(error.contains("half of a store"), "{error}");
            }
        }
        moved(&back);
        let running = Running::directory(&other, &other.join("archive"));
        assert_eq!(running.answers(), expected, "{}", redis.name);
        assert_eq!(running.books(), control.books());
        running.stop();
        control.stop();
    }
}
