"""Code that every tier, the lab and the testbed share; imports none of them."""
