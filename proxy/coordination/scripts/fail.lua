-- Count a failure towards its cause.
-- KEYS: the usage, the cause, the people of its row of failures, the other causes.
-- ARGV: our probe, the usage and for how long it is kept, the wait that Meta asked for,
-- first wait, longest wait, how long all this is kept, the API key, failures until the
-- gate closes, about how many people (0: any), in how many ms any people will do, a person.
-- Returns 1 if this closes the gate, for how long it is closed, failures in a row.

note_usage(KEYS[1], ARGV[2], ARGV[3])
for i = 4, #KEYS do end_probe(KEYS[i], ARGV[1]) end
local key, row, kept_for = KEYS[2], KEYS[3], ARGV[7]
local failures = redis.call('HINCRBY', key, 'failures', 1)
redis.call('HSETNX', key, 'since', now)
local people, needed = 0, tonumber(ARGV[10])
if needed > 0 then
  redis.call('SADD', row, ARGV[12])
  redis.call('PEXPIRE', row, kept_for)
  people = redis.call('SCARD', row)
  if people > needed then redis.call('SPOP', row) end
end
local lasts_for = now - tonumber(redis.call('HGET', key, 'since'))
local is_probe = ARGV[1] ~= '' and redis.call('HGET', key, 'probe') == ARGV[1]
if is_probe or (failures >= tonumber(ARGV[9])
    and (people >= needed or lasts_for >= tonumber(ARGV[11]))) then
  local closes, left =
    close(key, ARGV[1], ARGV[8], ARGV[4], ARGV[5], ARGV[6], kept_for)
  return {closes, left, failures}
end
local left = math.max((tonumber(redis.call('HGET', key, 'until') or '') or 0) - now, 0)
redis.call('PEXPIRE', key, left + tonumber(kept_for))
return {0, left, failures}
