//! Progress bars, on standard error where somebody looks at it.

use std::io::IsTerminal;

use es_projections::RebuildProgress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar up to `total`.
pub(crate) fn bar(total: u64, template: &str) -> ProgressBar {
    let shown = std::io::stderr().is_terminal();
    let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(total), target).with_style(style)
}

/// How far the build of a read model is, and how fast.
pub(crate) struct OfBuild(ProgressBar);

impl OfBuild {
    pub(crate) fn new(read_model: &str) -> Self {
        let bar = bar(0, "{prefix} {wide_bar} {human_pos}/{human_len} records {msg} {elapsed}");
        Self(bar.with_prefix(read_model.to_owned()))
    }

    pub(crate) fn show(&self, RebuildProgress { done, total, per_second, .. }: RebuildProgress) {
        self.0.set_length(total);
        self.0.set_position(done);
        self.0.set_message(format!("{per_second:.0}/s"));
    }

    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}
