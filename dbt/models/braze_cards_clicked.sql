{{ config(enabled='cards_clicked' in var('braze_streams')) }}
{{ braze.current_rows('cards_clicked') }}
