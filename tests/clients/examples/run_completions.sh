curl -X POST "https://api.pilot.inkeep.com/run/v1/chat/completions" \
  -H "Content-Type: application/json" \
  -d '{ "messages": [ { "content": "string", "role": "system" } ], "model": "string" }'
