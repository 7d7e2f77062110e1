"""Users, whom they follow, and what they are notified of."""
