"""Everything that brings news: watches, resync, scraping, model resolution; and the hub that turns news into work.

`kopf_feed.py` is the only file of the project that imports kopf. Decisions are made by `stowage.engine`.
"""
