"""What both mails have in common: address, language, words, templates, settings, and giving a mail to SES once.

Here belongs what a mail is and how it leaves. Whom a mail goes to, when, and what it tells of is its task's
(send_welcome_email.py, send_content_digest_email.py) or the digest's (digest/).
"""
