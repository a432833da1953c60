"""The slimmable core: layers as slices of the widest's, scopes, the dry run. It knows torch, but no detector."""
