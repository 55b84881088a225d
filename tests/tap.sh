# tap.sh: for shell tests: numbered lines of the Test Anything Protocol, and how many of them failed.
count=0 failed=0
ok() { # ok STATUS NAME
	count=$((count + 1))
	if [ "$1" = 0 ]; then
		echo "ok $count - $2"
	else
		failed=$((failed + 1))
		echo "not ok $count - $2"
	fi
}
