"""The weekly digest's content: the week's edition of posts, and the choice of each reader's posts from it.

Belongs here: choosing posts. Does not belong here: how the mail looks and at-most-once sending (mail/), and the run
over all users (send_content_digest_email.py).
"""
