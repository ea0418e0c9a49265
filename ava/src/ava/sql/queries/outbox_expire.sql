delete from outbox
where published_at < now() - make_interval(secs => $1)
