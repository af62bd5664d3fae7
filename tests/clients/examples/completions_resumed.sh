curl -X POST "https://your-kitemesh.example.com/v1/chat/resume" \
-H "Authorization: Bearer km_your_token_here" \
-H "Content-Type: application/json" \
-d '{
"model": "group:123e4567-e89b-12d3-a456-426614174000",
"approval_id": "86dd028d-6f5c-4f13-83db-d4fe9bc5b865",
"approved_tool_execution_ids": [
"1fb2fd25-8f78-412a-a0b8-7976e3700fc4"
],
"messages": [
{
"role": "user",
"content": "You can continue."
}
]
}'
