//! The regions of a few audiences in one shard.

use roaring::RoaringBitmap;

/// Adds to `sizes`, by the mask of the audiences that a member is in, how many members are in these alone.
///
/// Regions are kept apart while audiences are added one by one: each takes its share of every region there is, and
/// what nobody had is a region of its own. So each member is in one region, and the sizes add up.
pub(super) fn count(audiences: &[&RoaringBitmap], sizes: &mut [u64]) {
    let mut regions: Vec<(usize, RoaringBitmap)> = Vec::new();
    for (place, audience) in audiences.iter().enumerate() {
        let own = 1 << place;
        let mut rest = RoaringBitmap::clone(audience);
        let mut taken = Vec::new();
        for (mask, region) in &mut regions {
            if rest.is_empty() {
                break;
            }
            let both = &*region & &rest;
            if !both.is_empty() {
                *region -= &both;
                rest -= &both;
                taken.push((*mask | own, both));
            }
        }
        taken.push((own, rest));
        regions.extend(taken);
        regions.retain(|(_, region)| !region.is_empty());
    }
    for (mask, region) in regions {
        sizes[mask] += region.len();
    }
}
