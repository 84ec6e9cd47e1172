-- Erase a person. KEYS: the witnesses, the row of people that Meta does not show, that of
-- people with a failure about the app or the Page, that of people about whom Meta failed,
-- the one row of the version before.
-- ARGV: the person, and their digest. Returns 1 if they were a witness, in how many rows.
local witness = redis.call('ZREM', KEYS[1], ARGV[1])
return {witness, redis.call('SREM', KEYS[2], ARGV[2])
                 + redis.call('ZREM', KEYS[3], ARGV[2])
                 + redis.call('SREM', KEYS[4], ARGV[2])
                 + redis.call('SREM', KEYS[5], ARGV[2])}
