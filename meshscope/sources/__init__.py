"""Where facts come from: every source answers in the parts of the bundle's layout and judges nothing."""
