package main

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
)

// Numbers of the fields that are read and written, as proto/reprise/v1 has them.
const (
	leasesOfResponse   = 1
	tokenOfLease       = 1
	jobOfLease         = 2
	attemptOfLease     = 5
	creditsOfRequest   = 5
	itemsOfReport      = 1 // CompleteRequest.completions, FailRequest.attempts
	tokenOfItem        = 1
	failureOfAttempt   = 2
	messageOfFailure   = 1
	resultOfCompletion = 3
	resultsOfAnswer    = 1
	outcomeOfResult    = 1
	outcomeOK          = 1
)

// leased is what is read of a lease.
type leased struct {
	token   []byte
	jobID   int64
	attempt int64
}

func readLeases(response []byte) ([]leased, error) {
	var leases []leased
	err := eachField(response, func(number protowire.Number, _ uint64, data []byte) error {
		if number != leasesOfResponse {
			return nil
		}
		var one leased
		err := eachField(data, func(number protowire.Number, value uint64, data []byte) error {
			switch number {
			case tokenOfLease:
				one.token = data
			case jobOfLease:
				one.jobID = int64(value)
			case attemptOfLease:
				one.attempt = int64(value)
			}
			return nil
		})
		leases = append(leases, one)
		return err
	})
	return leases, err
}

// countOK says how many results of an answer to Complete or Fail are well.
func countOK(answer []byte) (int, error) {
	count := 0
	err := eachField(answer, func(number protowire.Number, _ uint64, data []byte) error {
		if number != resultsOfAnswer {
			return nil
		}
		return eachField(data, func(number protowire.Number, value uint64, _ []byte) error {
			if number == outcomeOfResult && value == outcomeOK {
				count++
			}
			return nil
		})
	})
	return count, err
}

// completeRequest gives every job a result of its own.
func completeRequest(leases []leased) []byte {
	var result []byte
	return report(leases, func(item []byte, one leased) []byte {
		result = append(strconv.AppendInt(append(result[:0], `{"job":`...), one.jobID, 10), '}')
		item = protowire.AppendTag(item, resultOfCompletion, protowire.BytesType)
		return protowire.AppendBytes(item, result)
	})
}

// failRequest gives every job the same failure, or one whose message is followed by its id.
func failRequest(leases []leased, failure []byte, message string) []byte {
	own := failure
	return report(leases, func(item []byte, one leased) []byte {
		if message != "" {
			own = protowire.AppendTag(append(own[:0:0], failure...), messageOfFailure, protowire.BytesType)
			own = protowire.AppendString(own, message+strconv.FormatInt(one.jobID, 10))
		}
		item = protowire.AppendTag(item, failureOfAttempt, protowire.BytesType)
		return protowire.AppendBytes(item, own)
	})
}

func creditsRequest(credits int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, creditsOfRequest, protowire.VarintType), uint64(credits))
}

func report(leases []leased, finish func(item []byte, one leased) []byte) []byte {
	var request, item []byte
	for _, one := range leases {
		item = protowire.AppendTag(item[:0], tokenOfItem, protowire.BytesType)
		item = finish(protowire.AppendBytes(item, one.token), one)
		request = protowire.AppendTag(request, itemsOfReport, protowire.BytesType)
		request = protowire.AppendBytes(request, item)
	}
	return request
}

// eachField calls visit with every field of a message: the value of a number, or the data of anything else.
func eachField(message []byte, visit func(number protowire.Number, value uint64, data []byte) error) error {
	for len(message) > 0 {
		number, kind, size := protowire.ConsumeTag(message)
		if size < 0 {
			return protowire.ParseError(size)
		}
		message = message[size:]
		var value uint64
		var data []byte
		switch kind {
		case protowire.VarintType:
			value, size = protowire.ConsumeVarint(message)
		case protowire.BytesType:
			data, size = protowire.ConsumeBytes(message)
		default:
			size = protowire.ConsumeFieldValue(number, kind, message)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := visit(number, value, data); err != nil {
			return err
		}
		message = message[size:]
	}
	return nil
}
