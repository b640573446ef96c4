{{ config(enabled='push_tokens' in var('braze_streams')) }}
{{ braze.current_rows('push_tokens') }}
