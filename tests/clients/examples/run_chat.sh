curl -X POST "https://api.pilot.inkeep.com/run/api/chat" \
  -H "Content-Type: application/json" \
  -d '{ "messages": [ { "role": "system" } ] }'
