"""Operations on the social network's own data: uploads, mail, reports, the trial of its tasks, demo data.

The only part of `ops` that imports `social`; `ops.main` adds its commands to the others.
"""
