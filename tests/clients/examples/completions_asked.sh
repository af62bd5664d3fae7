curl -X POST "https://your-kitemesh.example.com/v1/chat/completions" \
-H "Authorization: Bearer km_your_token_here" \
-H "Content-Type: application/json" \
-d '{
"model": "group:123e4567-e89b-12d3-a456-426614174000",
"messages": [
{
"role": "user",
"content": "Give a summary of the key points."
}
],
"metadata": {
"request_id": "req_demo_001",
"mode": "auto"
}
}'
