{{ config(enabled='user_aliases' in var('braze_streams')) }}
{{ braze.current_rows('user_aliases') }}
