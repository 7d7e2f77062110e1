"""What both mails share: address, language, words, templates, settings, and at-most-once delivery to SES.

Belongs here: a mail's form and delivery. Does not belong here: its recipients, time and content, which are its task's
(send_welcome_email.py, send_content_digest_email.py) or the digest's (digest/).
"""
