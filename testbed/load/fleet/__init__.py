"""``dimee load --devices N --mix FILE``: many simulated mobiles, each with a link of its own."""
