"""Explanation of recorded requests, and their replay at other prices or links."""
