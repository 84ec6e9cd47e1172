-- Delete all keys of a person; return which of entry, lease and note there were.
-- KEYS: entry, lease, note, marker.
redis.call('DEL', KEYS[4])
return {redis.call('DEL', KEYS[1]), redis.call('DEL', KEYS[2]),
        redis.call('DEL', KEYS[3])}
