"""Search: from Solr to the pages and the API that readers use."""
