//! Sizes of images, beside those of the peers (figures of 2026: MirageOS 4.11 on spt, stripped).

use anyhow::Result;
use fogbow_tests::builder::Place;
use fogbow_tests::measure::{Promise, Row};

use crate::Options;

/// An image, its promise in KiB, and MirageOS's size in KiB.
const IMAGES: [(&str, f64, f64); 2] = [("hello", 64.0, 2.29 * 1024.0), ("http", 400.0, 3.72 * 1024.0)];

pub(crate) fn rows(_: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (image, promise, mirage) in IMAGES {
        for place in Place::IMAGES {
            rows.push(Row {
                what: format!("{image} image on {}, KiB", place.name()),
                ours: std::fs::metadata(place.image(image)?)?.len() as f64 / 1024.0,
                reference: Some((mirage, "MirageOS".into())),
                // The drivers of a virtual machine come on top.
                promise: (place != Place::Virtio).then_some(Promise::AtMost(promise)),
            });
        }
    }
    Ok(rows)
}
