-- Take the lease unless it is taken or the note answers, and read all four keys.
-- KEYS: entry, lease, note, marker. ARGV: lease, its TTL in ms, LUA_PAUSE of the codec,
-- and the caller's rule: for how many ms of a pause a note answers, or for which share.
-- The age of a note is the part of its TTL that is over, by Redis's clock. A note of the
-- version before, or an unreadable one, counts as one of a second.
local values = redis.call('MGET', KEYS[1], KEYS[2], KEYS[3], KEYS[4])
if values[2] then return values end
if values[3] then
  local ttl, pause = string.match(values[3], ARGV[3])
  ttl, pause = tonumber(ttl or 1000), tonumber(pause or 1000)
  local age = math.max(0, ttl - redis.call('PTTL', KEYS[3]))
  local least = math.max(tonumber(ARGV[4]), pause * tonumber(ARGV[5]))
  if age < math.min(pause, least) then return values end
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
values[2] = ARGV[1]
return values
