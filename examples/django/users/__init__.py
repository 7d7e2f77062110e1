"""Users, follows and notifications."""
