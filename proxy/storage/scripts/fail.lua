-- Leave a note and end the flight, if the lease is still the caller's (see put.lua).
-- KEYS: entry, lease, note, marker. ARGV: lease, note, its TTL in ms, and perhaps an
-- entry and its TTL in ms, to store over an entry that is still there.
if redis.call('MGET', KEYS[2])[1] ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[3], ARGV[2], 'PX', ARGV[3])
if ARGV[4] then redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5], 'XX') end
redis.call('DEL', KEYS[2])
return 1
