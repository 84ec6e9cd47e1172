-- Take the lease unless it is taken or there is a note, and read all four keys.
-- KEYS: entry, lease, note, marker. ARGV: lease, its TTL in ms, the note that may go.
local values = redis.call('MGET', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
if not values[2] and (not values[3] or values[3] == ARGV[3]) then
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
  redis.call('DEL', KEYS[3])
  values[2], values[3] = ARGV[1], false
end
return values
