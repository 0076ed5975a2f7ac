"""Every setting of a run: `settings` and `attacks` are typed, `loading` reads YAML into them."""
