#!lua
-- Tells of many ended requests at once how good an event of each is posted by now.
--
--   KEYS  the records of the requests, all with the same {hash tag}
--   ARGV  none
--   returns for each record the rank of its tombstone, or '' where there is none
--   clock  not read
local ranks = {}
for i = 1, #KEYS do ranks[i] = redis.call('HGET', KEYS[i], 'posted') or '' end
return ranks
