"""What the weekly digest tells of: the week's edition of posts, and the choice of a reader's own from it.

Here belongs what decides on posts. How the mail looks, and that it goes out once, is mail/'s; the run over all users is
send_content_digest_email.py's.
"""
