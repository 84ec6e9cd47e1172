-- Delete all keys of a person; return which of them there were, in the same order.
-- KEYS: entry, lease, note, marker.
return {redis.call('DEL', KEYS[1]), redis.call('DEL', KEYS[2]),
        redis.call('DEL', KEYS[3]), redis.call('DEL', KEYS[4])}
